//! Rights that are missing.

use std::time::Duration;

use portolan_model::Readiness::Ready;
use tokio::time::timeout;

use crate::world::{Setup, deploy};

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
endpoints: [{addresses: [10.1.0.1]}]
"#;

/// The Role of `deploy/namespace-access` in the namespace, with one rule spoilt.
fn role_without(namespace: &str, resource: &str) -> String {
    let role = std::fs::read_to_string(deploy().join("namespace-access/role.yaml")).unwrap();
    let spoilt = role.replace(&format!("resources: [{resource}]"), "resources: [nothing]");
    assert_ne!(role, spoilt, "the Role must have a rule for {resource}");
    spoilt.replace("metadata:\n  name:", &format!("metadata:\n  namespace: {namespace}\n  name:"))
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn without_the_right_to_read_slices_the_source_waits_says_so_and_goes_on_once_it_has_it() {
    let setup = Setup::new().await.without_access();
    let namespace = setup.namespace.clone();
    let world = setup.start().await;
    world.apply(ORDERS).await;
    world.grant(role_without(&namespace, "endpointslices")).await;
    let finding = world.finding_where(|finding| finding.message.contains("endpointslices")).await;
    assert!(finding.message.contains("list"), "the finding must name the right that is missing: {finding}");
    assert!(!world.discovered.is_ready(), "without slices there is no full picture");

    world.grant(role_without(&namespace, "namespaces")).await;
    let mut discovered = world.discovered.clone();
    // 403 is asked again after at most half a minute.
    timeout(Duration::from_secs(60), discovered.ready()).await.expect("ready once the right is there");
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn a_right_that_is_lost_later_takes_nothing_away() {
    let setup = Setup::new().await.without_access();
    let namespace = setup.namespace.clone();
    let world = setup.start_with_role(role_without(&namespace, "namespaces")).await;
    world.apply(ORDERS).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;
    let finding = world.finding_where(|finding| finding.message.contains("namespaces")).await;
    assert_eq!(finding.severity, portolan_model::Severity::Warning, "{finding}");
    assert!(world.discovered.is_ready());

    world.grant(role_without(&namespace, "services")).await;
    // Watches that run are not cut by a lost right; the table stays, and so does readiness.
    world.apply(&ORDERS.replace("10.1.0.1", "10.1.0.2")).await;
    world.endpoints("orders", 80, &[("10.1.0.2:8080", Ready)]).await;
    assert!(world.discovered.is_ready());
}
