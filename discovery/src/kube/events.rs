//! Findings as Kubernetes Events, on the object at fault: `kubectl describe service orders` shows what is wrong with it.
//!
//! **Problem.** Findings come and go in bursts, every replica has the same ones, and the API server is what an operator needs
//! working when there are many. **Choice.** Only the holder of the Lease writes; a finding is written once it has
//! stood for a few seconds, then not again for an hour; all together at no more than a few a second. The name of
//! an Event is made from its finding and the object's uid, so that a new holder adds to the Event of the one before
//! instead of writing a second, and an object that was deleted and created again has Events of its own. (If the finding
//! never went away in between, only when the hour is over.) Nothing waits for this task, and what cannot be written is
//! tried again later, up to ten minutes.
//!
//! **Limit.** Events about objects without a namespace belong into the namespace `default`, for which Portolan usually has no
//! right. So a finding on a Namespace is not written; it stands at `/findings` and in the metric.
//!
//! kube's own `Recorder` is not used: it takes two findings with one reason on one object for the same Event.
//!
//! Rights: `create` and `patch` on `events` of the group `events.k8s.io` in each watched namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::params::GetParams;
use kube::core::request::Request as Ask;
use kube::{Api, Client};
use portolan_model::{Finding, ResourceRef};
use prometheus::{IntCounterVec, Opts, Registry};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};
use tracing::debug;

use super::access::{Access, Wanted};
use super::request::{Failure, fetch, from_call};

const CONTROLLER: &str = "portolan.dev/gateway";
/// The API's own limits, in bytes.
const MAX_NOTE: usize = 1024;
const MAX_REASON: usize = 128;
/// Findings kept in mind; beyond, the newest are not written.
const MAX_FINDINGS: usize = 10_000;
/// Between two attempts that come to nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// How Events are written; tests shorten the times.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// The name of this replica: the pod's.
    pub instance: String,
    /// So long must a finding have stood: while a Service is being created it has no slices for a moment.
    pub settle: Duration,
    /// After so long a finding that still stands is written again: Events vanish after an hour.
    pub repeat: Duration,
    /// So many Events at once, at most.
    pub burst: u32,
    /// One more Event each.
    pub refill: Duration,
}

impl EventSettings {
    /// 5 s, 1 h, 20 at once and one a second.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            settle: Duration::from_secs(5),
            repeat: Duration::from_secs(3600),
            burst: 20,
            refill: Duration::from_secs(1),
        }
    }
}

/// Follows findings and writes them as Events.
pub struct EventWriter {
    client: Client,
    settings: EventSettings,
    findings: Vec<watch::Receiver<Arc<Vec<Finding>>>>,
    holding: watch::Receiver<bool>,
    written: IntCounterVec,
    /// Each finding that stands or was written within the last hour.
    ledger: BTreeMap<Finding, Entry>,
    tokens: u32,
    access: Access,
}

impl std::fmt::Debug for EventWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventWriter")
            .field("settings", &self.settings)
            .field("ledger", &self.ledger.len())
            .finish()
    }
}

/// What is kept in mind of a finding.
#[derive(Debug)]
struct Entry {
    stands: bool,
    /// Whether it stood at the last look.
    stood: bool,
    /// Not before then it is written, or tried again.
    due: Instant,
    /// Attempts in a row that came to nothing.
    failures: u32,
    told: Option<Told>,
}

/// What was written last, and about which object of that name.
#[derive(Debug, Clone)]
struct Told {
    at: Instant,
    uid: Option<String>,
    count: i32,
}

/// What came of an attempt.
enum Done {
    Written(Told),
    /// It was told of this very object not long ago.
    Known(Told),
    /// There is no such object, and nobody would see its Event.
    Gone,
}

impl Entry {
    fn new(due: Instant) -> Self {
        Self { stands: true, stood: false, due, failures: 0, told: None }
    }

    fn done(&mut self, result: Result<Done, Failure>, settings: &EventSettings) {
        match result {
            Ok(Done::Written(told) | Done::Known(told)) => {
                self.due = told.at + settings.repeat;
                self.failures = 0;
                self.told = Some(told);
            }
            // Longer each time, so that a missing right is not asked for all day long.
            Ok(Done::Gone) | Err(_) => {
                let wait = (settings.settle * 6).saturating_mul(1 << self.failures.min(16));
                self.due = Instant::now() + wait.min(LONGEST_WAIT);
                self.failures += 1;
            }
        }
    }
}

impl Told {
    fn within(&self, time: Duration) -> bool {
        self.at.elapsed() < time
    }
}

/// The result as the metric has it; none where nothing was to be written.
fn label(result: &Result<Done, Failure>) -> Option<&'static str> {
    match result {
        Ok(Done::Written(_)) => Some("written"),
        Ok(Done::Known(_) | Done::Gone) => None,
        Err(_) => Some("failed"),
    }
}

impl EventWriter {
    /// A writer for the findings of all these receivers, which writes only while `holding` is true.
    ///
    /// # Errors
    /// When its metric is registered already.
    pub fn new(
        client: Client,
        settings: EventSettings,
        findings: Vec<watch::Receiver<Arc<Vec<Finding>>>>,
        holding: watch::Receiver<bool>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let help = "Findings written as Kubernetes Events, by result";
        let written = IntCounterVec::new(Opts::new("portolan_events_written_total", help), &["result"])?;
        registry.register(Box::new(written.clone()))?;
        let tokens = settings.burst;
        let access = Access::new(Wanted {
            resource: "events.events.k8s.io",
            verbs: "create and patch",
            meaning: "Findings on objects there are not told as Events",
            granted_by: "deploy/namespace-access",
        });
        Ok(Self { client, settings, findings, holding, written, ledger: BTreeMap::new(), tokens, access })
    }

    /// The right that is missing in each namespace, while something is to be written there.
    pub fn findings(&self) -> watch::Receiver<Arc<Vec<Finding>>> {
        self.access.findings()
    }

    /// Writes Events until all senders of findings, or the one of the Lease, are gone.
    pub async fn run(mut self) {
        let mut refill = interval(self.settings.refill);
        self.take_stock();
        loop {
            tokio::select! {
                changed = any_changed(&mut self.findings) => match changed {
                    true => self.take_stock(),
                    false => return,
                },
                changed = self.holding.changed() => if changed.is_err() { return },
                _ = refill.tick() => self.tokens = (self.tokens + 1).min(self.settings.burst),
            }
            if *self.holding.borrow_and_update() {
                self.write_due().await;
            } else {
                // Whether it may is not tried any more.
                self.access.retain(|_| false);
            }
        }
    }

    fn take_stock(&mut self) {
        let now = Instant::now();
        for entry in self.ledger.values_mut() {
            entry.stood = std::mem::take(&mut entry.stands);
        }
        for receiver in &mut self.findings {
            let findings = Arc::clone(&receiver.borrow_and_update());
            for finding in findings.iter().filter(|finding| api_path(&finding.resource).is_some()) {
                if let Some(entry) = self.ledger.get_mut(finding) {
                    // One that was gone may be about another object of the same name now: that is looked at.
                    if !entry.stood && !entry.stands {
                        entry.due = now + self.settings.settle;
                    }
                    entry.stands = true;
                } else if self.ledger.len() < MAX_FINDINGS {
                    self.ledger.insert(finding.clone(), Entry::new(now + self.settings.settle));
                }
            }
        }
        let repeat = self.settings.repeat;
        self.ledger
            .retain(|_, entry| entry.stands || entry.told.as_ref().is_some_and(|told| told.within(repeat)));
        self.forget_denials();
    }

    /// A right is missing only where something is to be written.
    fn forget_denials(&mut self) {
        let failing = self.ledger.iter().filter(|(_, entry)| entry.stands && entry.failures > 0);
        let namespaces: BTreeSet<_> =
            failing.map(|(finding, _)| Arc::clone(&finding.resource.namespace)).collect();
        self.access.retain(|denied| namespaces.contains(denied));
    }

    async fn write_due(&mut self) {
        let now = Instant::now();
        let mut due: Vec<_> =
            self.ledger.iter().filter(|(_, entry)| entry.stands && entry.due <= now).collect();
        // Who waits longest first, so that those that fail again and again hold up nobody.
        due.sort_by_key(|(_, entry)| entry.due);
        let due: Vec<Finding> =
            due.into_iter().take(self.tokens as usize).map(|(finding, _)| finding.clone()).collect();
        for finding in due {
            self.tokens -= 1;
            let told = self.ledger.get(&finding).and_then(|entry| entry.told.clone());
            let limit = Duration::from_secs(5);
            let result = timeout(limit, self.write(&finding, told.as_ref())).await;
            let result = result.unwrap_or(Err(Failure::TimedOut(limit)));
            if let Some(label) = label(&result) {
                self.written.with_label_values(&[label]).inc();
            }
            if let Err(error) = &result {
                debug!(%finding, %error, "event was not written");
            }
            if !matches!(result, Ok(Done::Gone | Done::Known(_))) {
                self.access.tried(&finding.resource.namespace, result.as_ref());
            }
            if let Some(entry) = self.ledger.get_mut(&finding) {
                entry.done(result, &self.settings);
            }
        }
    }

    async fn write(&self, finding: &Finding, told: Option<&Told>) -> Result<Done, Failure> {
        let Some(regarding) = self.regarding(&finding.resource).await else { return Ok(Done::Gone) };
        let uid = regarding.uid.clone();
        let told = told.filter(|told| told.uid == uid);
        if let Some(told) = told.filter(|told| told.within(self.settings.repeat)) {
            return Ok(Done::Known(told.clone()));
        }
        let count = told.map_or(0, |told| told.count).saturating_add(1);
        let event = event(finding, regarding, &self.settings.instance);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let series =
                    EventSeries { count: count.max(2), last_observed_time: MicroTime(Timestamp::now()) };
                let patch = Patch::Merge(serde_json::json!({ "series": series }));
                let name = event.metadata.name.unwrap_or_default();
                api.patch(&name, &PatchParams::default(), &patch).await.map_err(|error| from_call(&error))?;
            }
            Err(error) => return Err(from_call(&error)),
        }
        Ok(Done::Written(Told { at: Instant::now(), uid, count }))
    }

    /// The reference to the object, with its uid, by which `kubectl describe` finds the Event. Without the right to read it,
    /// without; none if the object is gone.
    async fn regarding(&self, resource: &ResourceRef) -> Option<ObjectReference> {
        #[derive(Deserialize)]
        struct Metadata {
            metadata: ObjectMeta,
        }
        let (api_version, path) = api_path(resource)?;
        let mut reference = ObjectReference {
            api_version: Some(api_version.into()),
            kind: Some(resource.kind.to_string()),
            name: Some(resource.name.to_string()),
            namespace: (!resource.namespace.is_empty()).then(|| resource.namespace.to_string()),
            ..ObjectReference::default()
        };
        let request = Ask::new(path).get_metadata(&resource.name, &GetParams::default()).ok()?;
        match fetch::<Metadata>(&self.client, request, Duration::from_secs(2)).await {
            Ok(Metadata { metadata }) => reference.uid = metadata.uid,
            Err(Failure::Answered { code: 404, .. }) => return None,
            Err(failure) => debug!(%resource, %failure, "uid is not known, the event goes without"),
        }
        Some(reference)
    }
}

/// Waits for a change of any; false when all senders are gone.
async fn any_changed(receivers: &mut Vec<watch::Receiver<Arc<Vec<Finding>>>>) -> bool {
    while !receivers.is_empty() {
        let (changed, index, _) =
            select_all(receivers.iter_mut().map(|receiver| Box::pin(receiver.changed()))).await;
        if changed.is_ok() {
            return true;
        }
        receivers.swap_remove(index);
    }
    false
}

/// The API version of the object's kind and the path of its collection; none for what is no Kubernetes object.
fn api_path(resource: &ResourceRef) -> Option<(&'static str, String)> {
    let (version, prefix, plural) = match resource.kind.as_ref() {
        "Service" => ("v1", "/api/v1", "services"),
        "ConfigMap" => ("v1", "/api/v1", "configmaps"),
        "EndpointSlice" => ("discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1", "endpointslices"),
        _ => return None,
    };
    let namespaced = !resource.namespace.is_empty() && !resource.name.is_empty();
    namespaced.then(|| (version, format!("{prefix}/namespaces/{}/{plural}", resource.namespace)))
}

fn event(finding: &Finding, regarding: ObjectReference, instance: &str) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(event_name(finding, regarding.uid.as_deref())),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some("Discover".into()),
        reason: Some(cut(&finding.reason, MAX_REASON)),
        note: Some(cut(&note(finding), MAX_NOTE)),
        type_: Some("Warning".into()),
        event_time: Some(MicroTime(Timestamp::now())),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(cut(instance, MAX_REASON)),
        ..Event::default()
    }
}

fn note(finding: &Finding) -> String {
    match finding.field.as_str() {
        "" => finding.message.clone(),
        field => format!("{field}: {}", finding.message),
    }
}

/// The same for the same finding on the same object, in every replica.
fn event_name(finding: &Finding, uid: Option<&str>) -> String {
    // FNV-1a: the standard library's hash may differ from build to build.
    let text = format!("{finding} {}", uid.unwrap_or_default());
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Names may have 253 bytes; Kubernetes' names are ASCII, but this must not depend on it.
    format!("{}.{hash:016x}", cut(&finding.resource.name, 230))
}

fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str, message: &str) -> Finding {
        Finding::error(&ResourceRef::new("Service", "shop", name), "spec.ports", "UnknownPort", message)
    }

    #[test]
    fn the_name_tells_findings_apart_and_is_the_same_everywhere() {
        let one = event_name(&finding("orders", "no port"), Some("a"));
        assert_eq!(one, event_name(&finding("orders", "no port"), Some("a")));
        assert_ne!(one, event_name(&finding("orders", "two ports"), Some("a")));
        assert_ne!(one, event_name(&finding("orders", "no port"), Some("b")), "another object of that name");
        assert!(one.starts_with("orders."), "{one}");
        assert_eq!(one.len(), "orders.".len() + 16);
    }

    #[test]
    fn long_notes_are_cut_to_the_limit_of_the_api() {
        let event = event(&finding("orders", &"ü".repeat(4000)), ObjectReference::default(), "pod");
        let note = event.note.unwrap();
        assert!(note.len() <= MAX_NOTE && note.ends_with('…'), "{}", note.len());
    }

    #[test]
    fn what_is_no_kubernetes_object_has_no_event() {
        assert!(api_path(&ResourceRef::new("File", "", "a.yaml")).is_none());
        assert!(api_path(&ResourceRef::new("Setting", "", "workers")).is_none());
        assert!(api_path(&ResourceRef::new("Source", "", "kubernetes")).is_none());
        assert!(
            api_path(&ResourceRef::new("Namespace", "", "shop")).is_none(),
            "it would belong into default"
        );
        let slice = api_path(&ResourceRef::new("EndpointSlice", "shop", "orders-x")).unwrap();
        assert_eq!(slice.1, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices");
    }
}
