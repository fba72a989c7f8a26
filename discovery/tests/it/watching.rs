//! What the source does while all is well.

use std::sync::Arc;

use http::header::ACCEPT;
use portolan_discovery::kube::Namespaces;
use portolan_discovery::translate::{Expose, TranslateConfig};

use crate::api_server::{ApiServer, Ask, NAMESPACES, SERVICES, SLICES, namespace, service, slice};
use crate::gateway::Gateway;

#[tokio::test]
async fn a_service_becomes_a_cluster_and_follows_its_slices() {
    let server = ApiServer::start().await;
    server.put(NAMESPACES, namespace("shop", false));
    server.put(SERVICES, service("shop", "orders"));
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.fresh(true).await;
    assert_eq!(gateway.findings(), []);

    server.put(SLICES, slice("shop", "orders", &["10.1.0.1", "10.1.0.2"]));
    gateway.serves("orders", &["10.1.0.1:8080", "10.1.0.2:8080"]).await;
    server.delete(SERVICES, "shop", "orders");
    gateway.serves_not("orders").await;

    let requests = server.requests();
    assert!(requests.iter().all(|request| request.ask != Some(Ask::List)), "a streaming list needs no other");
    let slices = requests.iter().find(|request| request.is(SLICES, Ask::StreamingList)).unwrap();
    assert!(!slices.query.contains_key("labelSelector"), "slices without the label are findings");
    assert_eq!(slices.query["allowWatchBookmarks"], "true");
    assert_eq!(slices.path, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices");
    assert_eq!(gateway.metric("portolan_watch_open", ("kind", "EndpointSlice")), 1.0);
    assert_eq!(gateway.metric("portolan_watch_relists_total", ("how", "streaming")), 2.0);
}

#[tokio::test]
async fn a_slice_that_names_no_service_is_a_finding_until_it_does() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let mut lost = slice("shop", "orders", &["10.1.0.1"]);
    lost["metadata"]["labels"] = serde_json::Value::Null;
    server.put(SLICES, lost);
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    let finding = gateway.finding("NoServiceLabel").await;
    assert_eq!(finding.resource.name.as_ref(), "orders-x1");
    gateway.serves("orders", &[]).await;
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.no_finding("NoServiceLabel").await;
}

#[tokio::test]
async fn an_empty_namespace_is_a_full_picture() {
    let server = ApiServer::start().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    assert!(gateway.discovered.snapshots.borrow().clusters.is_empty());
}

#[tokio::test]
async fn a_watch_that_ends_by_agreement_goes_on_from_the_last_version() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    server.wait_for_one_more(SERVICES, Ask::Watch).await;
    server.wait_for_one_more(SERVICES, Ask::Watch).await;
    assert!(gateway.is_fresh());
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    let pictures = server.requests().into_iter().filter(|request| request.is(SERVICES, Ask::StreamingList));
    assert_eq!(pictures.count(), 1, "one picture is enough");
    assert_eq!(gateway.metric("portolan_watch_restarts_total", ("kind", "Service")), 0.0);
}

#[tokio::test]
async fn several_namespaces_have_a_watch_each_and_others_are_not_seen() {
    let server = ApiServer::start().await;
    for namespace in ["shop", "stock", "secret"] {
        server.put(SERVICES, service(namespace, "orders"));
        server.put(SLICES, slice(namespace, "orders", &["10.1.0.1"]));
    }
    let namespaces = Namespaces::These(vec!["shop".into(), "stock".into()]);
    let mut gateway = Gateway::following(&server, namespaces);
    gateway.ready().await;
    gateway.serves_in("shop", "orders", &["10.1.0.1:8080"]).await;
    gateway.serves_in("stock", "orders", &["10.1.0.1:8080"]).await;
    assert_eq!(gateway.discovered.snapshots.borrow().clusters.len(), 2);
    assert!(server.requests().iter().all(|request| !request.path.contains("secret")));
    assert_eq!(gateway.metric("portolan_watch_open", ("kind", "Service")), 2.0);
}

#[tokio::test]
async fn the_label_of_a_namespace_exposes_its_services() {
    let server = ApiServer::start().await;
    let mut quiet = service("shop", "orders");
    quiet["metadata"]["annotations"] = serde_json::Value::Null;
    server.put(SERVICES, quiet);
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    server.put(NAMESPACES, namespace("shop", false));

    let mut polled = Gateway::on(&server);
    let mut watched = Gateway::following(&server, Namespaces::All);
    for gateway in [&mut polled, &mut watched] {
        gateway.ready().await;
        assert_eq!(gateway.addresses("orders"), None);
    }
    server.put(NAMESPACES, namespace("shop", true));
    for gateway in [&mut polled, &mut watched] {
        gateway.serves("orders", &["10.1.0.1:8080"]).await;
    }
    server.put(NAMESPACES, namespace("shop", false));
    for gateway in [&mut polled, &mut watched] {
        gateway.serves_not("orders").await;
    }
    let asked = server.requests();
    let watch = asked.iter().find(|request| request.is(NAMESPACES, Ask::StreamingList)).unwrap();
    assert!(watch.headers[ACCEPT].to_str().unwrap().contains("as=PartialObjectMetadata;"), "only metadata");
    let get = asked.iter().find(|request| request.is(NAMESPACES, Ask::Get)).unwrap();
    assert_eq!(get.path, "/api/v1/namespaces/shop");
}

#[tokio::test]
async fn a_change_of_the_configuration_translates_anew() {
    let server = ApiServer::start().await;
    let mut quiet = service("shop", "orders");
    quiet["metadata"]["annotations"] = serde_json::Value::Null;
    server.put(SERVICES, quiet);
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    assert_eq!(gateway.addresses("orders"), None);
    let all = TranslateConfig { expose: Expose::All, ..TranslateConfig::kubernetes("shop") };
    gateway.translate.send(Arc::new(all)).unwrap();
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.translate.send(Arc::new(TranslateConfig::kubernetes("shop"))).unwrap();
    gateway.serves_not("orders").await;
}
