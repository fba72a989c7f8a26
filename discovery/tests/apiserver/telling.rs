//! Findings told as Events, by one of several replicas.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use portolan_discovery::kube::events::{EventSettings, EventWriter};
use portolan_discovery::kube::lease::{Election, LeaseSettings};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{OWN_NAMESPACE, World, account_kubeconfig, connect, kubectl};

/// One replica's part of telling.
struct Replica {
    holding: watch::Receiver<bool>,
    end: CancellationToken,
    election: JoinHandle<()>,
    _writer: JoinHandle<()>,
}

impl Replica {
    async fn start(world: &World, name: &str) -> Replica {
        let client = connect(account_kubeconfig(&world.control_plane, "portolan").await).await;
        let lease = LeaseSettings {
            retry: Duration::from_millis(200),
            ..LeaseSettings::new(OWN_NAMESPACE, "portolan", name)
        };
        let (election, holding) = Election::new(client.clone(), lease);
        let settings = EventSettings {
            settle: Duration::from_millis(50),
            refill: Duration::from_millis(100),
            ..EventSettings::new(name)
        };
        let findings = vec![world.discovered.findings.clone()];
        let registry = prometheus::Registry::new();
        let writer = EventWriter::new(client, settings, findings, holding.clone(), &registry).unwrap();
        let end = CancellationToken::new();
        let election = tokio::spawn(election.run(end.clone()));
        Replica { holding, end, election, _writer: tokio::spawn(writer.run()) }
    }

    async fn holds(&mut self) {
        let holds = self.holding.wait_for(|holds| *holds);
        timeout(Duration::from_secs(20), holds).await.expect("the Lease is taken").unwrap();
    }
}

async fn events(world: &World) -> Vec<Event> {
    let events: Api<Event> = Api::namespaced(world.admin.clone(), &world.namespace);
    events.list(&ListParams::default()).await.unwrap().items
}

/// A Service that claims a host, and asks for a port.
fn service(name: &str, port: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations: {{portolan.dev/expose: "true", portolan.dev/host: shop.example.com, portolan.dev/port: {port}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: web, port: 80}}]}}
"#
    )
}

/// One test and not several: `deploy/base` allows one Lease, by its name.
#[tokio::test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
async fn one_replica_tells_on_the_object_at_fault_and_another_takes_over() {
    let world = World::new().await;
    let mut first = Replica::start(&world, "replica-1").await;
    first.holds().await;
    let mut second = Replica::start(&world, "replica-2").await;
    world.apply(&service("orders", "web")).await;
    world.apply(&service("payments", "nothing")).await;
    let told = wait_for_event(&world, "payments").await;
    assert_eq!(told.reporting_instance.as_deref(), Some("replica-1"));
    assert_eq!(told.reason.as_deref(), Some("UnknownPort"));
    assert!(!*second.holding.borrow());

    // The holder ends in good order, so the other need not wait for the Lease to run out.
    first.end.cancel();
    first.election.await.unwrap();
    second.holds().await;
    // The younger, and of the same age the later by name, of two that claim one host.
    world.apply(&service("zebra", "web")).await;
    let told = wait_for_event(&world, "zebra").await;
    assert_eq!(told.reporting_instance.as_deref(), Some("replica-2"));
    let described =
        kubectl(&world.control_plane, &["describe", "service", "zebra", "-n", &world.namespace]).await;
    for part in ["AlreadyClaimed", "shop.example.com", "orders"] {
        assert!(described.contains(part), "{part} is missing: {described}");
    }
    // What the first had told is not told again.
    let about_payments = events(&world).await.into_iter().filter(|event| is_about(event, "payments")).count();
    assert_eq!(about_payments, 1);
    second.end.cancel();
}

/// Whether the Event is ours and about this object: the API server's own controllers write some, too.
fn is_about(event: &Event, name: &str) -> bool {
    let is_ours = event.reporting_instance.as_deref().is_some_and(|it| it.starts_with("replica-"));
    is_ours && event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(name))
}

/// Watches for the Event. A watch without a version begins with what is there.
async fn wait_for_event(world: &World, name: &str) -> Event {
    use futures_util::{StreamExt, pin_mut};
    let api: Api<Event> = Api::namespaced(world.admin.clone(), &world.namespace);
    let stream =
        kube::runtime::WatchStreamExt::applied_objects(kube::runtime::watcher(api, Default::default()));
    pin_mut!(stream);
    let find = async {
        loop {
            let event = stream.next().await.expect("the watch goes on").unwrap();
            if is_about(&event, name) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(20), find).await.expect("the Event is written")
}
