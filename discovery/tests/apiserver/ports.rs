//! Service port → port name → the slice's own number.

use portolan_model::Readiness::Ready;

use crate::world::World;

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_named_target_port_is_the_slices_own_number() {
    let world = World::new().await;
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec:
  selector: {app: orders}
  ports: [{name: web, port: 80, targetPort: application}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: web, port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
"#,
        )
        .await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
    world.no_findings().await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn each_port_of_several_has_its_own_endpoints() {
    let world = World::new().await;
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec:
  ports: [{name: metrics, port: 9000}, {name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: metrics, port: 9090}, {name: dns, port: 5353, protocol: UDP}]
endpoints: [{addresses: [10.1.0.1]}]
"#,
        )
        .await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
    world.endpoints("orders", 9000, &[("10.1.0.1:9090", Ready)]).await;
    let udp = world.cluster("orders", 53);
    let snapshot = world.snapshot(|snapshot| !snapshot.clusters.contains_key(&udp)).await;
    // The port named http is the one of the routes by path.
    let by_path = snapshot.routes.values().find(|route| route.roles.edge).unwrap();
    assert_eq!(by_path.rules[0].backends[0].cluster, world.cluster("orders", 80));
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn slices_may_have_different_numbers_for_one_name() {
    let world = World::new().await;
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec: {ports: [{name: web, port: 80, targetPort: web}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-old, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: web, port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-new, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: web, port: 8081}]
endpoints: [{addresses: [10.1.0.2]}]
"#,
        )
        .await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8081", Ready)]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_headless_service_is_routed_like_any_other() {
    let world = World::new().await;
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: carts, annotations: {portolan.dev/expose: "true"}}
spec: {clusterIP: None, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: carts-1
  labels: {kubernetes.io/service-name: carts, service.kubernetes.io/headless: ""}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.1.0.1], hostname: carts-0}, {addresses: [10.1.0.2], hostname: carts-1}]
"#,
        )
        .await;
    world.endpoints("carts", 80, &[("10.1.0.1:8080", Ready), ("10.1.0.2:8080", Ready)]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_port_name_that_no_slice_has_is_found_and_heals() {
    let world = World::new().await;
    let service = r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec: {ports: [{name: web, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
"#;
    world.apply(service).await;
    let finding = world.finding("UnservedPort", "Service", "orders").await;
    assert!(finding.message.contains("web") && finding.field == "spec.ports[0].name", "{finding}");
    world.endpoints("orders", 80, &[]).await;

    world.apply(&service.replace("name: http,", "name: web,")).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
    world.no_findings().await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn the_annotation_chooses_the_port_and_a_wrong_one_is_found() {
    let world = World::new().await;
    let service = r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true", portolan.dev/port: admin}}
spec: {selector: {app: orders}, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
"#;
    world.apply(service).await;
    let chosen = world.cluster("orders", 81);
    world
        .snapshot(|snapshot| {
            let by_path = snapshot.routes.values().find(|route| route.roles.edge);
            by_path.is_some_and(|route| route.rules[0].backends[0].cluster == chosen)
        })
        .await;

    world.apply(&service.replace("port: admin}", "port: nothing}")).await;
    let finding = world.finding("UnknownPort", "Service", "orders").await;
    assert!(finding.message.contains("nothing") && finding.message.contains("admin = 81"), "{finding}");
    world.snapshot(|snapshot| snapshot.routes.values().all(|route| !route.roles.edge)).await;
}
