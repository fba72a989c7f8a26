//! One object that cannot be read harms no other, is named, and keeps its last good form.

use portolan_model::ResourceRef;
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Ask, Fault, SERVICES, SLICES, service, slice};
use crate::gateway::Gateway;

/// Ports are a list; this says otherwise.
fn broken(name: &str) -> Value {
    let mut object = service("shop", name);
    object["spec"]["ports"] = json!("eighty");
    object
}

#[tokio::test]
async fn in_a_list_it_is_left_out_and_named() {
    for streaming in [true, false] {
        let server = ApiServer::start().await;
        if !streaming {
            server.fail(SERVICES, &[Ask::StreamingList], Fault::Status(422, "no streaming lists", None));
        }
        server.put(SERVICES, broken("bills"));
        server.put(SERVICES, service("shop", "orders"));
        server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
        let mut gateway = Gateway::on(&server);
        gateway.ready().await;
        gateway.serves("orders", &["10.1.0.1:8080"]).await;
        let finding = gateway.finding("Malformed").await;
        assert_eq!(finding.resource, ResourceRef::new("Service", "shop", "bills"));
        assert_eq!(finding.field, "spec.ports");
        assert!(finding.message.contains("eighty"), "{finding}");
        assert_eq!(gateway.metric("portolan_watch_malformed_total", ("kind", "Service")), 1.0);

        server.put(SERVICES, service("shop", "bills"));
        gateway.no_finding("Malformed").await;
        gateway.serves("bills", &[]).await;
    }
}

#[tokio::test]
async fn on_a_watch_its_last_good_form_stays_over_a_relist_too() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;

    server.put(SERVICES, broken("orders"));
    let finding = gateway.finding("Malformed").await;
    assert_eq!(finding.field, "spec.ports");
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    assert_eq!(
        gateway.metric("portolan_watch_restarts_total", ("kind", "Service")),
        0.0,
        "no reason to begin anew"
    );

    server.expire();
    server.close_watches();
    server.wait_for_one_more(SERVICES, Ask::Watch).await;
    server.put(SLICES, slice("shop", "orders", &["10.1.0.3"]));
    gateway.serves("orders", &["10.1.0.3:8080"]).await;

    server.delete(SERVICES, "shop", "orders");
    gateway.serves_not("orders").await;
    gateway.no_finding("Malformed").await;
}

#[tokio::test]
async fn values_of_a_newer_kubernetes_are_no_fault_of_the_object() {
    let server = ApiServer::start().await;
    let mut new = service("shop", "orders");
    new["spec"]["type"] = json!("ClusterMagic");
    new["spec"]["sessionAffinity"] = json!("Telepathy");
    new["spec"]["ipFamilies"] = json!(["IPv4", "IPv8"]);
    new["spec"]["anythingNew"] = json!({"a": [1, 2]});
    server.put(SERVICES, new);
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    let mut strange = slice("shop", "orders", &["10.1.0.2"]);
    strange["metadata"]["name"] = json!("orders-x2");
    strange["addressType"] = json!("IPv8");
    server.put(SLICES, strange);
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    assert!(
        gateway.findings().iter().all(|finding| finding.reason != "Malformed"),
        "{:?}",
        gateway.findings()
    );
}
