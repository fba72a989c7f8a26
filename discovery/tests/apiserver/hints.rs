//! Zone hints, as the EndpointSlice controller writes them.

use std::collections::BTreeMap;

use crate::world::{Setup, World};

const ORDERS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {portolan.dev/expose: "true"}}
spec: {trafficDistribution: PreferSameZone, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orders-1, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints:
  - {addresses: [10.1.0.1], zone: west, hints: {forZones: [{name: west}]}}
  - {addresses: [10.1.0.2], zone: east, hints: {forZones: [{name: east}]}}
"#;

async fn world(zone: &str, zone_hints: bool) -> World {
    let mut setup = Setup::new().await;
    setup.translate.zone = Some(zone.into());
    setup.translate.zone_hints = zone_hints;
    setup.start().await
}

/// Waits until the endpoints have these priorities; 0 is preferred.
async fn priorities(world: &World, wanted: &[(&str, u8)]) {
    let wanted: BTreeMap<String, u8> =
        wanted.iter().map(|(address, it)| ((*address).to_owned(), *it)).collect();
    let id = world.cluster("orders", 80);
    world
        .snapshot(|snapshot| {
            let Some(cluster) = snapshot.clusters.get(&id) else { return false };
            let found = cluster.endpoints.iter().map(|it| (it.key.address.ip().to_string(), it.priority));
            found.collect::<BTreeMap<_, _>>() == wanted
        })
        .await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn endpoints_hinted_for_the_own_zone_come_first() {
    let world = world("west", true).await;
    world.apply(ORDERS).await;
    priorities(&world, &[("10.1.0.1", 0), ("10.1.0.2", 1)]).await;
    // One endpoint without a hint, and none of them counts.
    world.apply(&ORDERS.replace(", hints: {forZones: [{name: east}]}", "")).await;
    priorities(&world, &[("10.1.0.1", 0), ("10.1.0.2", 0)]).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn hints_for_nobody_here_or_switched_off_do_not_count() {
    for world in [world("north", true).await, world("west", false).await] {
        world.apply(ORDERS).await;
        priorities(&world, &[("10.1.0.1", 0), ("10.1.0.2", 0)]).await;
    }
}
