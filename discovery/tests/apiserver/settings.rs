//! The gateway's own ConfigMap, read with the right to this one object.

use std::sync::Arc;
use std::time::Duration;

use portolan_discovery::kube::{WatchMetrics, config_map};
use tokio::time::timeout;

use crate::world::{OWN_NAMESPACE, World, account_kubeconfig, connect, kubectl};

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn the_own_config_map_is_followed_by_name_and_no_other_can_be() {
    let world = World::new().await;
    let account = account_kubeconfig(&world.control_plane, "portolan").await;
    let client = connect(account).await;
    let metrics = WatchMetrics::register(&prometheus::Registry::new()).unwrap();
    let follow = |name| config_map::follow(client.clone(), OWN_NAMESPACE, name, "portolan.yaml", &metrics);
    let mut text = follow("portolan").texts;
    wait_for(&mut text, "expose: annotated").await;

    let other = ["create", "configmap", "other", "-n", OWN_NAMESPACE, "--from-literal=portolan.yaml=secret"];
    kubectl(&world.control_plane, &other).await;
    let mut other = follow("other");
    let patch = r#"{"data": {"portolan.yaml": "access-log: all"}}"#;
    kubectl(&world.control_plane, &["patch", "configmap", "portolan", "-n", OWN_NAMESPACE, "-p", patch])
        .await;
    wait_for(&mut text, "access-log: all").await;
    let denied = other.findings.wait_for(|findings| !findings.is_empty());
    let denied =
        timeout(Duration::from_secs(20), denied).await.expect("the finding comes").unwrap()[0].clone();
    assert_eq!(denied.reason, "AccessDenied");
    assert_eq!(*other.texts.borrow(), None, "deploy/base allows one ConfigMap");
}

async fn wait_for(text: &mut tokio::sync::watch::Receiver<Option<Arc<str>>>, part: &str) {
    let is_there = text.wait_for(|text| text.as_deref().is_some_and(|text| text.contains(part)));
    timeout(Duration::from_secs(20), is_there)
        .await
        .unwrap_or_else(|_| panic!("no {part:?} in time"))
        .unwrap();
}
