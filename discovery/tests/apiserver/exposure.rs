//! Which Services become routes.

use portolan_discovery::kube::Namespaces;
use portolan_discovery::translate::Expose;

use crate::world::{Setup, World, kubectl};

fn service(name: &str, annotations: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: {name}, annotations: {{{annotations}}}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}
"#
    )
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn the_annotation_exposes_and_hides() {
    let world = World::new().await;
    world.apply(&service("silent", "")).await;
    world.apply(&service("hidden", r#"portolan.dev/expose: "false""#)).await;
    world.apply(&service("exposed", r#"portolan.dev/expose: "true""#)).await;
    // Written last and watched in order: by now the others have been seen.
    let exposed = world.cluster("exposed", 80);
    let snapshot = world.snapshot(|snapshot| snapshot.clusters.contains_key(&exposed)).await;
    assert_eq!(snapshot.clusters.len(), 1);

    world.apply(&service("exposed", r#"portolan.dev/expose: "perhaps""#)).await;
    let finding = world.finding("InvalidAnnotation", "Service", "exposed").await;
    assert!(
        finding.field.contains("portolan.dev/expose") && finding.message.contains("perhaps"),
        "{finding}"
    );
    world.snapshot(|snapshot| snapshot.clusters.is_empty()).await;
}

#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn the_label_of_a_namespace_exposes_all_but_what_hides() {
    let world = World::new().await;
    world.apply(&service("silent", "")).await;
    world.apply(&service("hidden", r#"portolan.dev/expose: "false""#)).await;
    world.apply(&service("exposed", r#"portolan.dev/expose: "true""#)).await;
    let (silent, hidden) = (world.cluster("silent", 80), world.cluster("hidden", 80));
    let (control_plane, namespace) = (&world.control_plane, world.namespace.as_str());
    kubectl(control_plane, &["label", "namespace", namespace, "portolan.dev/expose=true"]).await;
    let snapshot = world.snapshot(|snapshot| snapshot.clusters.contains_key(&silent)).await;
    assert!(!snapshot.clusters.contains_key(&hidden));
    kubectl(control_plane, &["label", "namespace", namespace, "portolan.dev/expose-"]).await;
    world.snapshot(|snapshot| !snapshot.clusters.contains_key(&silent) && snapshot.clusters.len() == 1).await;
}

/// The component `all-namespaces`: its ClusterRole, for an account of its own so that the others keep to less.
#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn everything_everywhere_but_the_systems_own() {
    let mut setup = Setup::new().await.without_access();
    let role = crate::world::deploy().join("components/all-namespaces/cluster-role.yaml");
    let role = std::fs::read_to_string(role).unwrap().replace("name: portolan", "name: everywhere");
    let control_plane = setup.control_plane();
    kubectl(&control_plane, &["create", "serviceaccount", "everywhere", "-n", crate::world::OWN_NAMESPACE])
        .await;
    tokio::task::spawn_blocking(move || control_plane.apply(&role)).await.unwrap().unwrap();
    setup.account = "everywhere";
    setup.namespaces = Namespaces::All;
    setup.translate.expose = Expose::All;
    let world = setup.start().await;
    world.apply(&service("silent", "")).await;
    world.apply(&service("hidden", r#"portolan.dev/expose: "false""#)).await;
    world.apply(&service("last", "")).await;
    let last = world.cluster("last", 80);
    let snapshot = world.snapshot(|snapshot| snapshot.clusters.contains_key(&last)).await;
    assert!(snapshot.clusters.contains_key(&world.cluster("silent", 80)));
    assert!(!snapshot.clusters.contains_key(&world.cluster("hidden", 80)));
    let names: Vec<_> = snapshot.clusters.keys().map(|cluster| cluster.as_str().to_owned()).collect();
    let own = |name: &String| {
        name.starts_with("default/kubernetes:")
            || name.starts_with("kube-system/")
            || name.contains("/portolan")
    };
    assert!(!names.iter().any(own), "{names:?}");
}
