//! The followed ConfigMap.

use std::sync::Arc;
use std::time::Duration;

use portolan_discovery::kube::{WatchMetrics, config_map};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api_server::{ApiServer, Ask, CONFIG_MAPS, Fault};
use crate::gateway::timings;

fn settings(data: Value) -> Value {
    json!({"metadata": {"namespace": "own", "name": "portolan"}, "data": data})
}

fn follow(server: &ApiServer) -> watch::Receiver<Option<Arc<str>>> {
    follow_all(server).texts
}

fn follow_all(server: &ApiServer) -> config_map::Followed {
    let metrics = WatchMetrics::register(&Registry::new()).unwrap();
    config_map::follow_with(server.client(), "own", "portolan", "portolan.yaml", &metrics, timings())
}

async fn reads(receiver: &mut watch::Receiver<Option<Arc<str>>>, expected: Option<&str>) {
    let wait = receiver.wait_for(|text| text.as_deref() == expected);
    assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "never {expected:?}");
}

#[tokio::test]
async fn one_key_of_one_object_is_followed() {
    let server = ApiServer::start().await;
    server.put(
        CONFIG_MAPS,
        json!({"metadata": {"namespace": "own", "name": "other"}, "data": {"portolan.yaml": "no"}}),
    );
    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": "a: 1", "more": "x"})));
    let mut text = follow(&server);
    reads(&mut text, Some("a: 1")).await;
    let asked = server.requests();
    assert_eq!(asked[0].query["fieldSelector"], "metadata.name=portolan");
    assert_eq!(asked[0].path, "/api/v1/namespaces/own/configmaps");

    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": "a: 2"})));
    reads(&mut text, Some("a: 2")).await;
    server.put(CONFIG_MAPS, settings(Value::Null));
    reads(&mut text, None).await;
    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": "a: 3"})));
    reads(&mut text, Some("a: 3")).await;
    server.delete(CONFIG_MAPS, "own", "portolan");
    reads(&mut text, None).await;
}

#[tokio::test]
async fn what_was_last_read_stays_while_it_cannot_be_read() {
    let mut server = ApiServer::start().await;
    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": "a: 1"})));
    let mut text = follow(&server);
    reads(&mut text, Some("a: 1")).await;
    text.mark_unchanged();

    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": 7})));
    server.stop().await;
    server.fail(CONFIG_MAPS, &[Ask::List, Ask::StreamingList, Ask::Watch], Fault::Status(500, "no", None));
    server.resume().await;
    server.wait_for_one_more(CONFIG_MAPS, Ask::StreamingList).await;
    assert!(!text.has_changed().unwrap());
    server.heal();
    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": "a: 2"})));
    reads(&mut text, Some("a: 2")).await;
}

#[tokio::test]
async fn a_missing_right_is_a_finding_until_it_is_granted() {
    let server = ApiServer::start().await;
    server.put(CONFIG_MAPS, settings(json!({"portolan.yaml": "a: 1"})));
    let asks = [Ask::List, Ask::StreamingList, Ask::Watch];
    server.fail(CONFIG_MAPS, &asks, Fault::Status(403, "configmaps is forbidden", None));
    let config_map::Followed { mut texts, mut findings } = follow_all(&server);
    let wait = findings.wait_for(|findings| !findings.is_empty());
    let denied = timeout(Duration::from_secs(10), wait).await.unwrap().unwrap()[0].clone();
    assert_eq!(denied.reason, "AccessDenied");
    assert_eq!(denied.field, "configmaps in namespace own");
    assert!(denied.message.contains("not seen before a restart"), "{denied}");
    server.heal();
    reads(&mut texts, Some("a: 1")).await;
    let wait = findings.wait_for(|findings| findings.is_empty());
    assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "the finding stays");
}

#[tokio::test]
async fn it_ends_with_its_last_reader() {
    let server = ApiServer::start().await;
    let text = follow(&server);
    server.wait_for_one_more(CONFIG_MAPS, Ask::StreamingList).await;
    drop(text);
    let quiet = tokio::time::Instant::now();
    // Longer than a watch lasts: it would have begun another.
    tokio::time::sleep(timings().watch + timings().margin).await;
    assert!(server.requests().iter().all(|request| request.at < quiet + timings().margin));
}
