//! Rights that are missing, or are taken away.

use portolan_discovery::kube::{Namespaces, node};
use portolan_model::Severity;
use serde_json::json;

use crate::api_server::{ApiServer, Ask, Fault, NAMESPACES, SERVICES, SLICES, namespace, service, slice};
use crate::gateway::Gateway;

const READS: [Ask; 3] = [Ask::List, Ask::StreamingList, Ask::Watch];
const FORBIDDEN: Fault =
    Fault::Status(403, "endpointslices is forbidden: User \"portolan\" cannot list", None);

async fn shop() -> ApiServer {
    let server = ApiServer::start().await;
    server.put(NAMESPACES, namespace("shop", false));
    server.put(SERVICES, service("shop", "orders"));
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    server
}

#[tokio::test]
async fn without_the_right_to_a_required_kind_it_is_not_ready_and_says_why() {
    let server = shop().await;
    server.fail(SLICES, &READS, FORBIDDEN);
    let mut gateway = Gateway::on(&server);
    let finding = gateway.finding("AccessDenied").await;
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.field, "endpointslices.discovery.k8s.io in namespace shop");
    for part in ["may not list and watch", "User \"portolan\" cannot list", "not ready", "deploy/base"] {
        assert!(finding.message.contains(part), "{part}: {finding}");
    }
    // Half a picture is none: a Service without its slices would answer 503 and bear a finding that is not its own.
    assert_eq!(gateway.addresses("orders"), None);
    assert_eq!(gateway.findings().len(), 1);
    assert!(!gateway.is_ready());
    assert_eq!(gateway.metric("portolan_watch_denied", ("kind", "EndpointSlice")), 1.0);
    assert_eq!(gateway.metric("portolan_watch_denied", ("kind", "Service")), 0.0);
}

#[tokio::test]
async fn without_the_right_to_namespaces_it_is_ready_and_warns() {
    for namespaces in [Namespaces::These(vec!["shop".into()]), Namespaces::All] {
        let server = shop().await;
        let forbidden = Fault::Status(403, "namespaces is forbidden", None);
        server.fail(NAMESPACES, &[Ask::Get, Ask::List, Ask::StreamingList, Ask::Watch], forbidden);
        let mut gateway = Gateway::following(&server, namespaces);
        gateway.ready().await;
        gateway.serves("orders", &["10.1.0.1:8080"]).await;
        gateway.fresh(true).await;
        let finding = gateway.finding("AccessDenied").await;
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.field.starts_with("namespaces in "), "{finding}");
    }
}

#[tokio::test]
async fn a_namespace_that_does_not_exist_is_named() {
    let server = shop().await;
    let mut gateway = Gateway::following(&server, Namespaces::These(vec!["shop".into(), "shpo".into()]));
    gateway.ready().await;
    let finding = gateway.finding("UnknownNamespace").await;
    assert!(finding.message.contains("namespace shpo does not exist"), "{finding}");
    server.put(NAMESPACES, namespace("shpo", false));
    gateway.no_finding("UnknownNamespace").await;
}

#[tokio::test]
async fn a_right_that_is_lost_later_changes_freshness_only() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.fresh(true).await;
    server.fail(SLICES, &READS, FORBIDDEN);
    server.close_watches();
    gateway.fresh(false).await;
    let finding = gateway.finding("AccessDenied").await;
    assert!(finding.message.contains("serves on"), "{finding}");
    assert!(gateway.is_ready());
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn the_zone_of_a_node_is_read_if_it_may_be() {
    const NODES: &str = "/api/v1/nodes";
    let server = ApiServer::start().await;
    let labels = json!({"topology.kubernetes.io/zone": "eu-1a"});
    server.put(NODES, json!({"metadata": {"name": "n1", "labels": labels}}));
    server.put(NODES, json!({"metadata": {"name": "n2"}}));
    assert_eq!(node::zone(&server.client(), "n1").await.as_deref(), Some("eu-1a"));
    assert_eq!(node::zone(&server.client(), "n2").await, None);
    assert_eq!(node::zone(&server.client(), "n3").await, None);
    server.fail(NODES, &[Ask::Get], FORBIDDEN);
    assert_eq!(node::zone(&server.client(), "n1").await, None);
}

#[tokio::test]
async fn the_zone_of_a_node_is_asked_for_until_the_api_server_answers() {
    const NODES: &str = "/api/v1/nodes";
    let mut server = ApiServer::stopped().await;
    let labels = json!({"topology.kubernetes.io/zone": "eu-1a"});
    server.put(NODES, json!({"metadata": {"name": "n1", "labels": labels}}));
    let client = server.client();
    let zone = tokio::spawn(async move { node::zone(&client, "n1").await });
    server.fail(NODES, &[Ask::Get], Fault::Status(503, "starting", None));
    server.resume().await;
    server.wait_for_one_more(NODES, Ask::Get).await;
    assert!(!zone.is_finished(), "a server that cannot answer now has not said that there is no zone");
    server.heal();
    let zone = tokio::time::timeout(std::time::Duration::from_secs(20), zone).await;
    assert_eq!(zone.unwrap().unwrap().as_deref(), Some("eu-1a"));
}
