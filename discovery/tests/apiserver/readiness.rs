//! Who should get requests.

use portolan_model::Readiness::{Draining, NotReady, Ready};

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
endpoints:
"#;

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn conditions_that_say_nothing_mean_ready() {
    let world = World::new().await;
    let endpoints = "
  - {addresses: [10.1.0.1]}
  - {addresses: [10.1.0.2], conditions: {}}
  - {addresses: [10.1.0.3], conditions: {ready: true}}
  - {addresses: [10.1.0.4], conditions: {ready: false}}
";
    world.apply(&format!("{ORDERS}{endpoints}")).await;
    let wanted = [
        ("10.1.0.1:8080", Ready),
        ("10.1.0.2:8080", Ready),
        ("10.1.0.3:8080", Ready),
        ("10.1.0.4:8080", NotReady),
    ];
    world.endpoints("orders", 80, &wanted).await;
}

/// The controller marks the endpoints of such a Service ready, whatever their pods say, terminating ones too.
#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn publish_not_ready_addresses_is_what_the_slice_says() {
    let world = World::new().await;
    let orders = ORDERS.replace("spec: {", "spec: {publishNotReadyAddresses: true, ");
    let endpoints = "
  - {addresses: [10.1.0.1], conditions: {ready: true, serving: false, terminating: false}}
  - {addresses: [10.1.0.2], conditions: {ready: true, serving: true, terminating: true}}
";
    world.apply(&format!("{orders}{endpoints}")).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn an_endpoint_on_its_way_out_that_still_serves_is_kept_for_the_last_resort() {
    let world = World::new().await;
    let old = "\n  - {addresses: [10.1.0.1], conditions: {ready: true, serving: true, terminating: false}}\n";
    world.apply(&format!("{ORDERS}{old}")).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
    let leaving = "
  - {addresses: [10.1.0.1], conditions: {ready: false, serving: true, terminating: true}}
  - {addresses: [10.1.0.2], conditions: {ready: false, serving: false, terminating: true}}
  - {addresses: [10.1.0.3], conditions: {ready: false, serving: false, terminating: false}}
";
    world.apply(&format!("{ORDERS}{leaving}")).await;
    let wanted = [("10.1.0.1:8080", Draining), ("10.1.0.2:8080", NotReady), ("10.1.0.3:8080", NotReady)];
    world.endpoints("orders", 80, &wanted).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_pod_that_gets_the_address_of_another_is_another_endpoint() {
    let world = World::new().await;
    let uid = |snapshot: &portolan_model::Snapshot| {
        let cluster = snapshot.clusters.get(&world.cluster("orders", 80))?;
        cluster.endpoints.first()?.key.uid.clone()
    };
    let pod = |uid: &str| {
        format!(
            "\n  - {{addresses: [10.1.0.1], targetRef: {{kind: Pod, namespace: x, name: x, uid: {uid}}}}}\n"
        )
    };
    for identity in ["first", "second"] {
        world.apply(&format!("{ORDERS}{}", pod(identity))).await;
        world.snapshot(|snapshot| uid(snapshot).as_deref() == Some(identity)).await;
    }
}
