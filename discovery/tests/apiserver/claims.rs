//! Two Services that claim the same.

use std::time::Duration;

use portolan_model::Readiness::Ready;

use crate::world::World;

fn service(name: &str, address: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: {name}, annotations: {{portolan.dev/expose: "true", portolan.dev/path: /shop}}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: "", port: 8080}}]
endpoints: [{{addresses: [{address}]}}]
"#
    )
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn the_older_has_the_path_until_it_goes() {
    let world = World::new().await;
    world.apply(&service("zebra", "10.1.0.1")).await;
    world.endpoints("zebra", 80, &[("10.1.0.1:8080", Ready)]).await;
    // Creation times have whole seconds, and nothing tells when the next one begins.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.apply(&service("ant", "10.1.0.2")).await;
    let finding = world.finding("AlreadyClaimed", "Service", "ant").await;
    assert!(
        finding.message.contains("zebra") && finding.message.contains("ant"),
        "it must name both: {finding}"
    );
    assert!(finding.to_string().contains("/shop"), "it must name the path: {finding}");
    let leads_to = |snapshot: &portolan_model::Snapshot| {
        let by_path = snapshot.routes.values().filter(|route| route.roles.edge);
        by_path.map(|route| route.rules[0].backends[0].cluster.clone()).collect::<Vec<_>>()
    };
    let zebra = vec![world.cluster("zebra", 80)];
    world.snapshot(|snapshot| leads_to(snapshot) == zebra).await;

    world.delete("Service", "zebra").await;
    let ant = vec![world.cluster("ant", 80)];
    world.snapshot(|snapshot| leads_to(snapshot) == ant).await;
    world.no_findings().await;
}
