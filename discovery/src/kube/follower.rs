//! Joins what the watches tell: one index, one voice towards the store, and the source's own findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portolan_model::{Contribution, Finding, ResourceRef};
use tokio::sync::{mpsc, watch as watch_channel};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::access::{source_resource, unauthenticated};
use super::decode::reference;
use super::request::Failure;
use super::watch::{Closed, Malformed, Observer, Report};
use crate::source::{Change, Sink};
use crate::translate::{Index, ObjectEvent, TranslateConfig};

/// So many messages are taken at once: what came together is seen together.
const BATCH: usize = 256;

/// What a watch tells the follower.
pub(super) struct Message {
    watch: usize,
    what: What,
    observed: Instant,
}

enum What {
    Listed { events: Vec<ObjectEvent>, malformed: Vec<Malformed> },
    Applied(ResourceRef, Box<ObjectEvent>),
    Deleted(ResourceRef),
    Malformed(Malformed),
    Listening,
    Lost(Failure),
}

/// Through which a watch speaks.
pub(super) struct Mouthpiece<K> {
    pub(super) watch: usize,
    pub(super) kind: Arc<str>,
    pub(super) sender: mpsc::Sender<Message>,
    pub(super) event: fn(K) -> ObjectEvent,
}

impl<K: kube::Resource<DynamicType = ()> + Send> Observer<K> for Mouthpiece<K> {
    async fn report(&mut self, report: Report<K>, observed: Instant) -> Result<(), Closed> {
        let what = match report {
            Report::Listed { objects, gone, malformed } => {
                let gone = gone.into_iter().map(ObjectEvent::Gone);
                What::Listed { events: gone.chain(objects.into_iter().map(self.event)).collect(), malformed }
            }
            Report::Applied(object) => {
                What::Applied(reference(&self.kind, object.meta()), Box::new((self.event)(object)))
            }
            Report::Deleted(resource) => What::Deleted(resource),
            Report::Malformed(malformed) => What::Malformed(malformed),
            Report::Listening => What::Listening,
            Report::Lost(failure) => What::Lost(failure),
        };
        self.sender.send(Message { watch: self.watch, what, observed }).await.map_err(|_| Closed)
    }
}

/// What is known of one watch.
pub(super) struct Followed {
    /// As RBAC spells it: `endpointslices.discovery.k8s.io`.
    resource: String,
    namespace: Option<String>,
    required: bool,
    /// Its first picture has come, or (if it is not required) will not come soon.
    settled: bool,
    touch: Touch,
    /// The first of the failures of one sort that stand between it and the API server.
    failure: Option<Failure>,
    malformed: BTreeMap<ResourceRef, Malformed>,
}

#[derive(Clone, Copy)]
enum Touch {
    Never,
    Open,
    LostSince(Instant),
}

impl Followed {
    pub(super) fn new(resource: String, namespace: Option<&str>, required: bool) -> Self {
        Self {
            resource,
            namespace: namespace.map(Into::into),
            required,
            settled: false,
            touch: Touch::Never,
            failure: None,
            malformed: BTreeMap::new(),
        }
    }

    fn is_fresh(&self, patience: Duration, now: Instant) -> bool {
        match self.touch {
            Touch::Never => false,
            Touch::Open => true,
            Touch::LostSince(since) => now < since + patience,
        }
    }

    fn lost(&mut self, failure: Failure, observed: Instant) {
        self.settled |= !self.required;
        if matches!(self.touch, Touch::Open) {
            self.touch = Touch::LostSince(observed);
        }
        // The text of each attempt differs a little; the finding need not.
        if self.failure.as_ref().is_none_or(|before| before.label() != failure.label()) {
            self.failure = Some(failure);
        }
    }

    fn opened(&mut self) {
        self.touch = Touch::Open;
        self.failure = None;
    }

    /// What its state means for whoever runs the gateway.
    fn findings(&self, patience: Duration, now: Instant) -> impl Iterator<Item = Finding> {
        let failure = self.failure.as_ref().and_then(|failure| self.failure_finding(failure, patience, now));
        failure.into_iter().chain(self.malformed.values().map(malformed_finding))
    }

    fn failure_finding(&self, failure: &Failure, patience: Duration, now: Instant) -> Option<Finding> {
        let source = source_resource();
        let (resource, verbs) = (&self.resource, if self.is_polled() { "get" } else { "list and watch" });
        let place = match &self.namespace {
            Some(namespace) => format!("namespace {namespace}"),
            None => "all namespaces".into(),
        };
        let field = format!("{resource} in {place}");
        if failure.is_denied() {
            let meaning = match (self.required, self.settled) {
                (false, _) => {
                    "Labels of namespaces count as absent, so a namespace cannot expose its Services"
                }
                (true, true) => "What was last known serves on, changes are not seen",
                (true, false) => "The gateway is not ready before it may",
            };
            let make = if self.required { Finding::error } else { Finding::warning };
            if failure.is_unauthenticated() {
                let message = unauthenticated(failure, meaning);
                return Some(make(&source, field, "Unauthenticated", message));
            }
            let granted_by = match &self.namespace {
                Some(_) => "deploy/base does for its own namespace and deploy/namespace-access for others",
                None => "deploy/components/all-namespaces does",
            };
            // A namespace takes its Roles with it, and without them nothing tells that it is gone.
            let or = match &self.namespace {
                Some(_) => {
                    ". If the namespace was deleted, create it again or take it out of the namespaces setting"
                }
                None => "",
            };
            let message = format!(
                "Portolan may not {verbs} {resource} in {place} ({failure}). {meaning}. \
                 Grant {verbs} on {resource} to its ServiceAccount, as {granted_by}{or}",
            );
            return Some(make(&source, field, "AccessDenied", message));
        }
        if self.is_polled() && failure.is_not_found() {
            let message = format!("{place} does not exist. Correct the namespaces setting or create it");
            return Some(Finding::warning(&source, field, "UnknownNamespace", message));
        }
        if !self.required || self.is_fresh(patience, now) {
            return None;
        }
        let meaning = match self.settled {
            true => "What was last known serves on, changes are not seen",
            false => "Until it answers, the gateway is ready only if it found a snapshot file to start from",
        };
        let message = format!(
            "{resource} in {place} cannot be watched: {failure}. {meaning}. It is tried again by itself"
        );
        Some(Finding::warning(&source, field, "OutOfTouch", message))
    }

    fn is_polled(&self) -> bool {
        !self.required && self.namespace.is_some()
    }
}

/// The one task that owns the index.
pub(super) struct Follower {
    sink: Sink,
    watches: Vec<Followed>,
    translate: watch_channel::Receiver<Arc<TranslateConfig>>,
    patience: Duration,
    index: Index,
    /// What has to be said, and since when.
    touched: BTreeSet<ResourceRef>,
    touched_at: Option<Instant>,
    synced: bool,
    findings: Vec<Finding>,
}

impl Follower {
    pub(super) fn new(
        sink: Sink,
        watches: Vec<Followed>,
        translate: watch_channel::Receiver<Arc<TranslateConfig>>,
        patience: Duration,
    ) -> Self {
        Self {
            sink,
            watches,
            translate,
            patience,
            index: Index::new(),
            touched: BTreeSet::new(),
            touched_at: None,
            synced: false,
            findings: Vec::new(),
        }
    }

    /// Follows until all watches have ended, which they do not.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut looked = Instant::now();
        loop {
            let wake = self.wake_at(looked);
            let mut translate = self.translate.clone();
            tokio::select! {
                count = inbox.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = config_changed(&mut translate) => {
                    self.translate = translate;
                    self.touch_all();
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            for message in batch.drain(..) {
                self.take(message);
            }
            let complete = self.watches.iter().all(|watch| watch.settled);
            // The first picture is said in one piece: a Service without its slices would look like a fault of its own.
            if complete {
                self.say_touched().await;
            }
            looked = Instant::now();
            self.say_findings(looked).await;
            if complete && !self.synced {
                self.synced = true;
                self.sink.synced();
                info!("first picture is complete");
            }
            let patience = self.patience;
            self.sink.fresh(
                self.watches
                    .iter()
                    .filter(|watch| watch.required)
                    .all(|watch| watch.is_fresh(patience, looked)),
            );
        }
    }

    /// When a watch will have been closed for too long; those that had been at the last look are known.
    fn wake_at(&self, looked: Instant) -> Option<Instant> {
        let stale = self.watches.iter().filter_map(|watch| match watch.touch {
            Touch::LostSince(since) => Some(since + self.patience),
            Touch::Never | Touch::Open => None,
        });
        stale.filter(|at| *at > looked).min()
    }

    fn take(&mut self, Message { watch, what, observed }: Message) {
        let followed = &mut self.watches[watch];
        let events = match what {
            What::Listening => {
                followed.opened();
                return;
            }
            What::Lost(failure) => {
                followed.lost(failure, observed);
                return;
            }
            What::Malformed(malformed) => {
                followed.malformed.insert(malformed.resource.clone(), malformed);
                return;
            }
            What::Listed { events, malformed } => {
                followed.settled = true;
                followed.malformed = malformed.into_iter().map(|it| (it.resource.clone(), it)).collect();
                events
            }
            What::Applied(resource, event) => {
                followed.malformed.remove(&resource);
                vec![*event]
            }
            What::Deleted(resource) => {
                followed.malformed.remove(&resource);
                vec![ObjectEvent::Gone(resource)]
            }
        };
        for event in events {
            self.touched.extend(self.index.apply(event));
        }
        if !self.touched.is_empty() {
            let oldest = self.touched_at.map_or(observed, |before| before.min(observed));
            self.touched_at = Some(oldest);
        }
    }

    fn touch_all(&mut self) {
        self.touched.extend(self.index.keys());
        self.touched_at.get_or_insert_with(Instant::now);
    }

    async fn say_touched(&mut self) {
        let Some(observed) = self.touched_at.take() else { return };
        let config = Arc::clone(&self.translate.borrow());
        let changes = std::mem::take(&mut self.touched)
            .into_iter()
            .map(|key| match self.index.contribution(&key, &config) {
                Some(contribution) => Change::Upsert(key, contribution),
                None => Change::Remove(key),
            })
            .collect();
        self.sink.apply(changes, observed).await;
    }

    async fn say_findings(&mut self, now: Instant) {
        let findings: Vec<_> =
            self.watches.iter().flat_map(|watch| watch.findings(self.patience, now)).collect();
        if findings != self.findings {
            self.findings.clone_from(&findings);
            let contribution = Contribution { findings, ..Contribution::default() };
            self.sink.upsert(source_resource(), contribution, Instant::now()).await;
        }
    }
}

/// Waits for a change; for ever when nobody can make one any more.
async fn config_changed(translate: &mut watch_channel::Receiver<Arc<TranslateConfig>>) {
    if translate.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn malformed_finding(malformed: &Malformed) -> Finding {
    let kind = &malformed.resource.kind;
    let message = format!(
        "this {kind} cannot be read: {}. It stays as it was when it last could be read, if ever. Correct the field, \
         or update Portolan if a newer Kubernetes writes it so",
        malformed.error
    );
    Finding::error(&malformed.resource, malformed.field.as_str(), "Malformed", message)
}
