//! One picture of everything, published whenever it changes.
//!
//! **Problem.** Changes come one by one and in bursts: a single pod becomes ready, or a rolling update rewrites slices
//! for a minute. The data path wants each change at once and does not want to rebuild its table a thousand times a
//! second.
//!
//! **Choice.** One task owns everything that was said, so there is no lock and no order to think about. A change after
//! quiet is published at once (the leading edge); from then on at most one snapshot is published every
//! `PUBLISH_INTERVAL`, holding all changes since the one before. A picture equal to the last is not published.
//!
//! **Cost.** Under churn a change waits up to the interval. Work is proportional to what changed, not to what is held:
//! snapshots share structure, and unchanged parts keep their `Arc`.

mod metrics;
mod stand_in;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use portolan_model::{Finding, Snapshot};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::metrics::Metrics;
use self::stand_in::StandIn;
use crate::merge::{Merge, Picture};
use crate::snapshot_file::{LastPicture, Taken};
use crate::source::{Change, Message, Said, Sink, SourceState};

/// At most one snapshot in this time, but for the first after quiet.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(5);

/// How long messages that are already waiting may hold back the first snapshot after quiet.
const GATHER_LIMIT: Duration = Duration::from_millis(1);

/// Findings are for people and for Events: a fault that heals within this time is never told.
const FINDINGS_DELAY: Duration = Duration::from_millis(50);

/// How many messages may wait. A source that finds no room waits.
const WAITING_MESSAGES: usize = 1024;

/// The single writer of snapshots. Make one, hand a [`Sink`] to each source, subscribe, and then [`run`](Self::run) it.
#[derive(Debug)]
pub struct Store {
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    wake: Arc<Notify>,
    sources: Vec<Arc<SourceState>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    findings: watch::Sender<Arc<Vec<Finding>>>,
    statuses: watch::Sender<Arc<Vec<SourceStatus>>>,
    restored: watch::Sender<Option<Arc<Taken>>>,
    stand_in: Option<StandIn>,
    metrics: Metrics,
}

/// What the store publishes. Latest wins: a slow reader skips what it missed.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// The picture; before the first, the empty one with generation 0.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Everything that could not be honoured, sorted.
    pub findings: watch::Receiver<Arc<Vec<Finding>>>,
    /// How each source does, in the order of [`Store::sink`].
    pub sources: watch::Receiver<Arc<Vec<SourceStatus>>>,
    /// Where the picture comes from while it is [restored](Store::restore); none while it is the sources' own.
    pub restored: watch::Receiver<Option<Arc<Taken>>>,
}

/// How a source does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name.
    pub name: &'static str,
    /// Whether readiness waits for it.
    pub required: bool,
    /// Its first full picture is in the published snapshot. Once true, always true.
    pub synced: bool,
    /// It is in touch with its origin.
    pub fresh: bool,
    /// When it last said something that changed the picture.
    pub last_change: Option<Instant>,
}

impl Discovered {
    /// Whether a whole picture is published: every required source's own, or a restored one. Once true, always true.
    pub fn is_ready(&self) -> bool {
        // In this order: when the sources take over, they count as synced before the picture counts as their own.
        self.restored.borrow().is_some() || self.is_own()
    }

    /// Whether every required source's first full picture is published, and so no restored one any more. Once true,
    /// always true.
    pub fn is_own(&self) -> bool {
        all_synced(&self.sources.borrow())
    }

    /// Whether every required source is in touch with its origin.
    pub fn is_in_touch(&self) -> bool {
        self.sources.borrow().iter().all(|it| it.fresh || !it.required)
    }

    /// Waits until [`is_ready`](Self::is_ready). Cancel safe. Never returns if the store ends before.
    pub async fn ready(&mut self) {
        let Self { sources, restored, .. } = self;
        tokio::select! {
            Ok(_) = sources.wait_for(|sources| all_synced(sources)) => {}
            Ok(_) = restored.wait_for(Option::is_some) => {}
            else => std::future::pending().await,
        }
    }
}

fn all_synced(sources: &[SourceStatus]) -> bool {
    sources.iter().all(|it| it.synced || !it.required)
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// A store that has heard nothing. Its metrics are kept but shown nowhere until they are
    /// [registered](Self::register).
    pub fn new() -> Self {
        let (sender, messages) = mpsc::channel(WAITING_MESSAGES);
        Self {
            sender,
            messages,
            wake: Arc::default(),
            sources: Vec::new(),
            snapshots: watch::Sender::default(),
            findings: watch::Sender::default(),
            statuses: watch::Sender::default(),
            restored: watch::Sender::default(),
            stand_in: None,
            metrics: Metrics::new(),
        }
    }

    /// Shows the store's metrics in `registry`.
    ///
    /// # Errors
    /// If the registry has metrics of these names already: register one store only.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }

    /// The end at which the source `source` speaks. Readiness waits for the required ones.
    pub fn sink(&mut self, source: &'static str, required: bool) -> Sink {
        let state = Arc::new(SourceState::new(source, self.wake.clone()));
        self.sources.push(state.clone());
        let status = SourceStatus { name: source, required, synced: false, fresh: false, last_change: None };
        self.statuses.send_modify(|statuses| Arc::make_mut(statuses).push(status));
        Sink::new(self.sources.len() - 1, self.sender.clone(), state)
    }

    /// A picture of before for the time in which `source` has not told its own: `grace` after the store began to run
    /// it is published, with the listeners of now, unless the sources were faster. When every required source has
    /// told, their picture replaces it whole; parts that are equal keep their `Arc`.
    pub fn restore(&mut self, source: &'static str, picture: LastPicture, grace: Duration) {
        self.stand_in = Some(StandIn::new(source, picture, grace));
    }

    /// What will be published.
    pub fn subscribe(&self) -> Discovered {
        Discovered {
            snapshots: self.snapshots.subscribe(),
            findings: self.findings.subscribe(),
            sources: self.statuses.subscribe(),
            restored: self.restored.subscribe(),
        }
    }

    /// Takes in what sources say and publishes, for as long as the future is polled. Dropping it leaves the last
    /// snapshot in place.
    pub async fn run(self) {
        // The store's own sender lives as long as the loop, so that receiving never ends.
        let Self { sender: _sender, mut messages, wake, sources, stand_in, .. } = self;
        let Self { snapshots, findings, statuses, restored, metrics, .. } = self;
        let publish = Publish { snapshots, findings, statuses, restored, metrics };
        let mut ledger = Ledger::new(sources, stand_in, publish);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                // Messages first: what is waiting belongs into the snapshot that is due. They cannot hold it back,
                // since what is due is looked at after each batch.
                biased;
                _ = messages.recv_many(&mut batch, 64) => {
                    for message in batch.drain(..) {
                        ledger.take(message);
                    }
                }
                () = wait_until(ledger.next_deadline()) => {}
                () = wake.notified() => {}
            }
            ledger.take_stock();
            ledger.restore_if_due();
            ledger.publish_what_is_due(messages.is_empty());
            ledger.tell_status();
        }
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct Publish {
    snapshots: watch::Sender<Arc<Snapshot>>,
    findings: watch::Sender<Arc<Vec<Finding>>>,
    statuses: watch::Sender<Arc<Vec<SourceStatus>>>,
    restored: watch::Sender<Option<Arc<Taken>>>,
    metrics: Metrics,
}

/// What the running store knows.
struct Ledger {
    merge: Merge,
    sources: Vec<Heard>,
    publish: Publish,
    /// A picture of before, for as long as it may be needed.
    stand_in: Option<StandIn>,
    generation: u64,
    /// Every required source has said its first full picture.
    whole: bool,
    /// A picture of the sources' own was published.
    shown: bool,
    /// When the oldest change was observed that no snapshot shows yet.
    oldest_change: Option<Instant>,
    publish_at: Option<Instant>,
    last_published: Option<Instant>,
    findings_at: Option<Instant>,
}

/// What was heard of a source.
struct Heard {
    state: Arc<SourceState>,
    /// How many of its messages were taken in.
    messages: u64,
    last_change: Option<Instant>,
    /// Its first full picture was taken in.
    synced: bool,
}

impl Ledger {
    fn new(sources: Vec<Arc<SourceState>>, mut stand_in: Option<StandIn>, publish: Publish) -> Self {
        if let Some(stand_in) = &mut stand_in {
            stand_in.begin(Instant::now());
        }
        let heard = |state| Heard { state, messages: 0, last_change: None, synced: false };
        Self {
            merge: Merge::default(),
            sources: sources.into_iter().map(heard).collect(),
            publish,
            stand_in,
            generation: 0,
            whole: false,
            shown: false,
            oldest_change: None,
            publish_at: None,
            last_published: None,
            findings_at: None,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let restore_at = self.stand_in.as_ref().and_then(StandIn::due_at);
        [self.publish_at, self.findings_at, restore_at].into_iter().flatten().min()
    }

    fn take(&mut self, Message { source, said, observed }: Message) {
        let changed = match said {
            Said::All(all) => self.merge.replace_all(source, all),
            Said::Changes(changes) => changes.into_iter().fold(false, |changed, change| {
                let this = match change {
                    Change::Upsert(resource, contribution) => {
                        self.merge.upsert(source, resource, contribution)
                    }
                    Change::Remove(resource) => self.merge.remove(source, &resource),
                };
                changed | this
            }),
        };
        let now = Instant::now();
        let heard = &mut self.sources[source];
        heard.messages += 1;
        if changed {
            heard.last_change = Some(now);
            self.oldest_change = Some(self.oldest_change.map_or(observed, |oldest| oldest.min(observed)));
        }
        if self.merge.take_findings_changed() {
            self.findings_at.get_or_insert(now + FINDINGS_DELAY);
        }
    }

    /// Looks which sources have told their first full picture: once each time round, so that everything below goes by
    /// the same answer while they go on speaking.
    fn take_stock(&mut self) {
        for heard in &mut self.sources {
            heard.synced |= heard.state.is_synced(heard.messages);
        }
        self.whole |= self.have_told(|_| true);
    }

    /// Whether the required sources of these names have told their first full picture.
    fn have_told(&self, is_asked: impl Fn(&str) -> bool) -> bool {
        let told = self.publish.statuses.borrow();
        let mut pairs = told.iter().zip(&self.sources).filter(|(status, _)| is_asked(status.name));
        pairs.all(|(status, heard)| !status.required || heard.synced)
    }

    /// Publishes the picture of before once its time has come and everything but the source that it stands in for has
    /// told. Nothing that the sources say is shown before all of them have.
    fn restore_if_due(&mut self) {
        let now = Instant::now();
        let Some(mut stand_in) = self.stand_in.take().filter(|_| !self.whole) else { return };
        if !stand_in.is_due(now) || !self.have_told(|name| name != stand_in.source) {
            self.stand_in = Some(stand_in);
            return;
        }
        let LastPicture { taken, routes, clusters } = stand_in.picture;
        tracing::warn!(
            source = stand_in.source,
            age = ?taken.age(),
            generation = taken.generation,
            "the source does not answer: serving from the snapshot file until it does"
        );
        let picture = self.merge.restore(routes, clusters);
        self.last_published = Some(now);
        self.publish.restored.send_replace(Some(Arc::new(taken)));
        self.publish.metrics.restored.set(1);
        self.send(picture, None);
    }

    /// Publishes the snapshot and the findings whose time has come. A snapshot waits for messages that are in the
    /// channel already, so that what was said together is seen together, but not for long.
    fn publish_what_is_due(&mut self, channel_is_empty: bool) {
        let now = Instant::now();
        self.schedule(now);
        if self.publish_at.is_some_and(|at| at <= now && (channel_is_empty || at + GATHER_LIMIT <= now)) {
            self.publish_snapshot(now);
        }
        if self.findings_at.is_some_and(|at| at <= now) {
            self.findings_at = None;
            self.publish_findings();
        }
        self.publish.metrics.objects.set(i64::try_from(self.merge.objects()).unwrap_or(i64::MAX));
    }

    /// Sets when the changes that no snapshot shows yet are published. The first picture waits for every required source:
    /// half a picture would answer 404 for what the other half knows.
    /// A restored picture is replaced as soon as all have, even if they have nothing to say.
    fn schedule(&mut self, now: Instant) {
        let replaces = !self.shown && self.generation > 0;
        if self.whole && (self.oldest_change.is_some() || replaces) {
            let earliest = self.last_published.map_or(now, |last| now.max(last + PUBLISH_INTERVAL));
            self.publish_at.get_or_insert(earliest);
        }
    }

    fn publish_snapshot(&mut self, now: Instant) {
        self.publish_at = None;
        // The first picture shows no change: how long it took says nothing of convergence.
        let changed_at = self.oldest_change.take().filter(|_| self.shown);
        self.shown |= self.generation > 0;
        if let Some(picture) = self.merge.publish() {
            self.shown = true;
            self.last_published = Some(now);
            self.send(picture, changed_at);
        }
    }

    fn send(&mut self, picture: Picture, changed_at: Option<Instant>) {
        self.generation += 1;
        let Picture { listeners, routes, clusters } = picture;
        let changed_at = changed_at.map(Instant::into_std);
        let snapshot = Snapshot { generation: self.generation, changed_at, listeners, routes, clusters };
        self.publish.snapshots.send_replace(Arc::new(snapshot));
        self.publish.metrics.published(self.generation);
        if self.generation == 1 {
            // With the first picture everything there is to say of it.
            self.findings_at = None;
            self.publish_findings();
        }
    }

    fn publish_findings(&self) {
        let findings = self.merge.findings();
        self.publish.findings.send_if_modified(|published| {
            let differs = **published != findings;
            if differs {
                *published = Arc::new(findings);
            }
            differs
        });
    }

    /// Tells how the sources do. A source counts as synced only when nothing that it said is still to be published.
    fn tell_status(&mut self) {
        if self.publish_at.is_some() {
            return;
        }
        let mut told: Vec<_> = self.publish.statuses.borrow().as_ref().clone();
        for (status, heard) in told.iter_mut().zip(&self.sources) {
            status.synced = heard.synced;
            status.fresh = heard.state.is_fresh();
            status.last_change = heard.last_change;
        }
        if told == **self.publish.statuses.borrow() {
            return;
        }
        self.publish_first(&told);
        self.publish.metrics.show_sources(&told);
        self.publish.statuses.send_replace(Arc::new(told));
        self.end_restored();
    }

    /// The picture is the sources' own once all of them count as synced.
    fn end_restored(&self) {
        if self.whole && self.publish.restored.borrow().is_some() {
            tracing::info!(generation = self.generation, "the sources answer: their own picture is in use");
            self.publish.metrics.restored.set(0);
            self.publish.restored.send_replace(None);
        }
    }

    /// Generation 0 is the picture before anything was known. If the sources have nothing to say, the same picture is
    /// generation 1 when that is known.
    fn publish_first(&mut self, told: &[SourceStatus]) {
        let mut required = told.iter().filter(|it| it.required).peekable();
        if self.generation == 0 && required.peek().is_some() && required.all(|it| it.synced) {
            self.shown = true;
            self.send(Picture::default(), None);
        }
    }
}
