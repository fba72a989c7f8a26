//! Findings as Events.

use std::sync::Arc;
use std::time::Duration;

use portolan_discovery::kube::events::{EventSettings, EventWriter};
use portolan_model::{Finding, ResourceRef};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api_server::{ApiServer, Ask, EVENTS, Fault, SERVICES, SLICES, service, slice};

struct Writer {
    findings: watch::Sender<Arc<Vec<Finding>>>,
    own_findings: watch::Receiver<Arc<Vec<Finding>>>,
    holding: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    fn new(server: &ApiServer, settings: EventSettings) -> Self {
        let (findings, receiver) = watch::channel(Arc::default());
        let (holding, is_holding) = watch::channel(true);
        let writer =
            EventWriter::new(server.client(), settings, vec![receiver], is_holding, &Registry::new())
                .unwrap();
        let own_findings = writer.findings();
        Self { findings, own_findings, holding, task: tokio::spawn(writer.run()) }
    }

    fn find(&self, findings: &[Finding]) {
        self.findings.send(Arc::new(findings.to_vec())).unwrap();
    }
}

fn settings() -> EventSettings {
    EventSettings {
        settle: Duration::from_millis(50),
        refill: Duration::from_millis(20),
        ..EventSettings::new("pod-1")
    }
}

fn finding(kind: &str, name: &str, message: &str) -> Finding {
    Finding::error(&ResourceRef::new(kind, "shop", name), "spec.ports", "UnknownPort", message)
}

async fn written(server: &ApiServer, count: usize) {
    server.wait_for(&format!("{count} events"), |_| server.objects(EVENTS).len() >= count).await;
    assert_eq!(server.objects(EVENTS).len(), count);
}

/// How often something has happened at most that happened at once and then each so many milliseconds.
fn most_in(begun: Instant, milliseconds: u128) -> usize {
    usize::try_from(begun.elapsed().as_millis() / milliseconds).unwrap() + 1
}

/// So many requests on Events.
fn writes(server: &ApiServer) -> usize {
    server.requests().iter().filter(|request| request.path.contains("/events")).count()
}

#[tokio::test]
async fn a_finding_is_an_event_on_its_object() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
    let writer = Writer::new(&server, settings());
    writer.find(&[
        finding("Service", "orders", "there is no port web"),
        finding("Service", "orders", "and no port api"),
        finding("EndpointSlice", "orders-x1", "no address"),
        finding("Service", "gone", "it was deleted in the meantime"),
        finding("File", "a.yaml", "no Kubernetes object"),
    ]);
    written(&server, 3).await;
    let events = server.objects(EVENTS);
    let event = events.iter().find(|it| it["note"] == "spec.ports: there is no port web").unwrap();
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "UnknownPort");
    assert_eq!(event["regarding"]["kind"], "Service");
    assert_eq!(event["regarding"]["uid"], "uid-of-orders");
    assert_eq!(event["metadata"]["namespace"], "shop");
    assert_eq!(event["reportingInstance"], "pod-1");
    assert!(event["eventTime"].is_string());
    let slice = events.iter().find(|it| it["regarding"]["kind"] == "EndpointSlice").unwrap();
    assert_eq!(slice["regarding"]["apiVersion"], "discovery.k8s.io/v1");
}

#[tokio::test]
async fn only_the_holder_writes_and_each_finding_once() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let writer = Writer::new(&server, settings());
    writer.holding.send(false).unwrap();
    let one = finding("Service", "orders", "one");
    writer.find(std::slice::from_ref(&one));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(writes(&server), 0, "it does not hold the Lease");
    writer.holding.send(true).unwrap();
    written(&server, 1).await;
    // It goes, it comes back, and another comes: one more Event.
    writer.find(&[]);
    writer.find(&[one.clone(), finding("Service", "orders", "two")]);
    written(&server, 2).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(writes(&server), 2);
    drop(writer.findings);
    writer.task.await.unwrap();

    // Another replica takes over: it adds to the Event instead of writing a second.
    let other = Writer::new(&server, settings());
    other.find(&[one]);
    server.wait_for("a patch", |requests| requests.iter().any(|it| it.method == http::Method::PATCH)).await;
    server.wait_for("a series", |_| server.objects(EVENTS).iter().any(|it| it["series"]["count"] == 2)).await;
    written(&server, 2).await;
}

#[tokio::test]
async fn a_finding_that_heals_soon_is_not_written() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let writer = Writer::new(&server, EventSettings { settle: Duration::from_secs(2), ..settings() });
    writer.find(&[finding("Service", "orders", "no slices yet")]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.find(&[]);
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert_eq!(writes(&server), 0);
}

#[tokio::test]
async fn many_findings_trickle() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let slow = EventSettings { burst: 5, refill: Duration::from_millis(200), ..settings() };
    let writer = Writer::new(&server, slow);
    let many: Vec<_> =
        (0..50).map(|number| finding("Service", "orders", &format!("fault {number}"))).collect();
    let begun = Instant::now();
    writer.find(&many);
    server.wait_for("more than the first burst", |_| server.objects(EVENTS).len() >= 7).await;
    let (count, most) = (server.objects(EVENTS).len(), 5 + most_in(begun, 200));
    assert!(count <= most, "{count} events, and not up to {most}: five at once, then five a second");
}

#[tokio::test]
async fn it_does_not_hammer_a_server_that_denies() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    server.fail(EVENTS, &[Ask::Get], Fault::Status(403, "events is forbidden", None));
    let writer = Writer::new(&server, settings());
    let begun = Instant::now();
    writer.find(&[finding("Service", "orders", "one")]);
    server.wait_for("a second try", |_| writes(&server) >= 2).await;
    // At once, and again after six times 50 ms each time.
    let (tries, most) = (writes(&server), most_in(begun, 300));
    assert!(tries <= most, "{tries} tries, and not up to {most}");
    server.heal();
    written(&server, 1).await;
}

#[tokio::test]
async fn a_repeat_that_is_denied_waits_as_well() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let repeat = Duration::from_millis(200);
    let writer = Writer::new(&server, EventSettings { repeat, ..settings() });
    writer.find(&[finding("Service", "orders", "one")]);
    written(&server, 1).await;
    server.fail(EVENTS, &[Ask::Get], Fault::Status(403, "events is forbidden", None));
    let (begun, before) = (Instant::now(), writes(&server));
    server.wait_for("a second try", |_| writes(&server) >= before + 2).await;
    // After up to 200 ms, and again each 300 ms later; the refill would allow one each 20 ms.
    let (tries, most) = (writes(&server) - before, 1 + most_in(begun, 300));
    assert!(tries <= most, "{tries} tries, and not up to {most}");
}

#[tokio::test]
async fn a_missing_right_is_a_finding_until_it_is_granted() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    server.fail(EVENTS, &[Ask::Get], Fault::Status(403, "events is forbidden", None));
    let mut writer = Writer::new(&server, settings());
    writer.find(&[finding("Service", "orders", "one")]);
    let denied = own_finding(&mut writer, 1).await.remove(0);
    assert_eq!(denied.reason, "AccessDenied");
    assert_eq!(denied.resource, ResourceRef::new("Source", "", "kubernetes"));
    assert_eq!(denied.field, "events.events.k8s.io in namespace shop");
    for part in ["may not create and patch", "events is forbidden", "deploy/namespace-access"] {
        assert!(denied.message.contains(part), "{part}: {denied}");
    }
    server.heal();
    own_finding(&mut writer, 0).await;
    // It is not said for longer than there is something to write, nor by who is not to write.
    for end in [|writer: &Writer| writer.find(&[]), |writer: &Writer| writer.holding.send(false).unwrap()] {
        server.fail(EVENTS, &[Ask::Get], Fault::Status(403, "events is forbidden", None));
        writer.find(&[finding("Service", "orders", "two")]);
        own_finding(&mut writer, 1).await;
        end(&writer);
        own_finding(&mut writer, 0).await;
    }
}

async fn own_finding(writer: &mut Writer, count: usize) -> Vec<Finding> {
    let wait = writer.own_findings.wait_for(|findings| findings.len() == count);
    let found = tokio::time::timeout(Duration::from_secs(10), wait).await;
    found.unwrap_or_else(|_| panic!("never {count} findings")).unwrap().to_vec()
}

#[tokio::test]
async fn an_object_that_was_created_again_has_its_own_event() {
    let server = ApiServer::start().await;
    server.put(SERVICES, service("shop", "orders"));
    let writer = Writer::new(&server, settings());
    let one = [finding("Service", "orders", "one")];
    writer.find(&one);
    written(&server, 1).await;

    server.delete(SERVICES, "shop", "orders");
    writer.find(&[]);
    let mut again = service("shop", "orders");
    again["metadata"]["uid"] = "another".into();
    server.put(SERVICES, again);
    // The writer has to see it gone: two values sent at once are one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    writer.find(&one);
    written(&server, 2).await;
    let uids: Vec<_> = server.objects(EVENTS).iter().map(|it| it["regarding"]["uid"].clone()).collect();
    assert!(uids.contains(&"uid-of-orders".into()) && uids.contains(&"another".into()), "{uids:?}");
}

#[tokio::test]
async fn an_object_that_is_not_there_yet_counts_as_not_written() {
    let server = ApiServer::start().await;
    let writer = Writer::new(&server, settings());
    writer.find(&[finding("Service", "orders", "one")]);
    server.wait_for_one_more(SERVICES, Ask::Get).await;
    server.put(SERVICES, service("shop", "orders"));
    written(&server, 1).await;
}
