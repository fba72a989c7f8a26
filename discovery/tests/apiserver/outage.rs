//! The API server goes away and comes back.

use std::sync::Arc;
use std::time::Duration;

use portolan_model::Readiness::Ready;
use portolan_testbed::{ControlPlane, Options};
use tokio::time::{Instant, timeout};

use crate::world::{Setup, World};

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

/// The API server of its own, since others are busy with the shared one.
async fn own_control_plane() -> Arc<ControlPlane> {
    let start = || ControlPlane::start(&Options::default());
    Arc::new(tokio::task::spawn_blocking(start).await.unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn the_table_stays_while_the_api_server_is_away_and_is_right_soon_after() {
    let control_plane = own_control_plane().await;
    let world = Setup::on_fresh(Arc::clone(&control_plane)).await.start().await;
    world.apply(ORDERS).await;
    world.endpoints("orders", 80, &[("10.1.0.1:8080", Ready)]).await;

    let killed = Arc::clone(&control_plane);
    tokio::task::spawn_blocking(move || killed.kill_api_server()).await.unwrap();
    is_fresh(&world, false).await;
    let away = world.discovered.snapshots.borrow().clone();
    assert!(away.clusters.contains_key(&world.cluster("orders", 80)), "what was known stays");
    assert!(world.discovered.is_ready(), "an API server that is away takes no readiness");

    let restarted = Arc::clone(&control_plane);
    tokio::task::spawn_blocking(move || restarted.restart_api_server()).await.unwrap().unwrap();
    let back = Instant::now();
    world.apply(&ORDERS.replace("10.1.0.1", "10.1.0.9")).await;
    world.endpoints("orders", 80, &[("10.1.0.9:8080", Ready)]).await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(15), "right only {took:?} after the API server came back");
    is_fresh(&world, true).await;
}

async fn is_fresh(world: &World, wanted: bool) {
    let mut sources = world.discovered.sources.clone();
    let changed = sources.wait_for(|sources| sources.iter().all(|source| source.fresh == wanted));
    timeout(Duration::from_secs(30), changed).await.expect("freshness follows the API server").unwrap();
}
