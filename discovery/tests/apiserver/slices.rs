//! Several slices of one Service, and slices that change whose they are.

use portolan_model::Readiness::Ready;

use crate::world::World;

const ORDERS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}]
"#;

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn an_endpoint_in_two_slices_is_one_endpoint() {
    let world = World::new().await;
    world.apply(ORDERS).await;
    // As the controller does it while it moves an endpoint: written to the new slice before it leaves the old one.
    world
        .apply(
            r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-2, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.1.0.2]}, {addresses: [10.1.0.3]}]
"#,
        )
        .await;
    let all = [("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready), ("10.1.0.3:8080", Ready)];
    world.endpoints("orders", 80, &all).await;
    world.delete("EndpointSlice", "orders-1").await;
    world.endpoints("orders", 80, &all[1..]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_slice_that_changes_its_label_changes_its_service() {
    let world = World::new().await;
    world.apply(ORDERS).await;
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: carts, annotations: {portolan.dev/expose: "true"}}
spec: {selector: {app: carts}, ports: [{port: 80}]}
"#,
        )
        .await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
    world.endpoints("carts", 80, &[]).await;

    world.apply(&ORDERS.replace("service-name: orders", "service-name: carts")).await;
    world.endpoints("carts", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
    world.endpoints("orders", 80, &[]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_slice_without_the_label_belongs_to_nobody() {
    let world = World::new().await;
    world.apply(ORDERS).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
    world.apply(&ORDERS.replace(", labels: {kubernetes.io/service-name: orders}", "")).await;
    world.endpoints("orders", 80, &[]).await;
    world.finding("NoServiceLabel", "EndpointSlice", "orders-1").await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn deleted_objects_are_forgotten() {
    let world = World::new().await;
    world.apply(ORDERS).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
    world.delete("Service", "orders").await;
    world.snapshot(|snapshot| snapshot.clusters.is_empty() && snapshot.routes.is_empty()).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_service_without_selector_waits_for_a_slice_written_by_hand() {
    let world = World::new().await;
    let (service, slice) = ORDERS.split_once("\n---\n").unwrap();
    world.apply(service).await;
    let finding = world.finding("NoEndpointSlices", "Service", "orders").await;
    assert!(finding.message.contains("503"), "it must say what happens meanwhile: {finding}");
    world.endpoints("orders", 80, &[]).await;
    world.apply(slice).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
    world.no_findings().await;
}
