//! Which addresses are dialled.

use portolan_model::Readiness::Ready;

use crate::world::World;

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn dual_stack_uses_the_family_that_the_service_prefers() {
    let world = World::new().await;
    let service = r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv6, IPv4]
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-4, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-6, labels: {kubernetes.io/service-name: orders}}
addressType: IPv6
ports: [{name: "", port: 8080}]
endpoints: [{addresses: ["fd00:10::1"]}]
"#;
    world.apply(service).await;
    world.endpoints("orders", 80, &[("[fd00:10::1]:8080", Ready)]).await;
    // Only when the preferred family has nobody does the other one serve.
    world.delete("EndpointSlice", "orders-6").await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn names_are_not_dialled_and_found() {
    let world = World::new().await;
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-names, labels: {kubernetes.io/service-name: orders}}
addressType: FQDN
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [orders.example.com]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
"#,
        )
        .await;
    let finding = world.finding_on("EndpointSlice", "orders-names").await;
    assert_eq!(finding.field, "addressType");
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
}

/// The API server itself refuses most addresses that mean the gateway; that it does so is no reason to trust it (an
/// older or another one may not), only the reason why the tests of those addresses stand beside the translation.
#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn addresses_that_mean_the_gateway_or_many_are_refused_by_somebody() {
    let world = World::new().await;
    let slice = |address: &str| {
        format!(
            r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: orders-bad, labels: {{kubernetes.io/service-name: orders}}}}
addressType: IPv4
ports: [{{name: "", port: 8080}}]
endpoints: [{{addresses: [{address}]}}, {{addresses: [10.1.0.1]}}]
"#
        )
    };
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0"] {
        let why = world.refused(&slice(address)).await;
        assert!(why.contains("endpoints[0].addresses[0]"), "{address}: {why}");
    }
    world
        .apply(
            r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec: {ports: [{port: 80}]}
"#,
        )
        .await;
    world.apply(&slice("239.1.1.1")).await;
    let finding = world.finding("RefusedAddress", "EndpointSlice", "orders-bad").await;
    assert!(finding.message.contains("239.1.1.1") && finding.field.starts_with("endpoints[0]"), "{finding}");
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
}
