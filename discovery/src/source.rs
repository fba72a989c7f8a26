//! How a source speaks to the store.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portolan_model::{Contribution, ResourceRef};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Where configuration comes from: a Kubernetes API server, a folder of manifests, a registry.
///
/// A source keeps whatever index it needs, translates what it reads into [`Contribution`]s and says them through its
/// [`Sink`]. What it said last stays until it says otherwise, so it may lose its origin and come back at any time.
pub trait Source: Send + 'static {
    /// A short word for metrics and logs: `kubernetes`, `files`.
    fn name(&self) -> &'static str;

    /// Follows the origin for as long as the future is polled. Dropping the future ends the source; what it said stays
    /// in the store.
    ///
    /// # Errors
    /// Only when the source can never work, such as a folder that is missing at start. A source that can only wait
    /// for its origin waits, and says so by [`Sink::fresh`].
    fn run(self, sink: Sink) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// One step in what a source says.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object contributes this, in place of whatever it contributed before.
    Upsert(ResourceRef, Contribution),
    /// The object contributes nothing any more.
    Remove(ResourceRef),
}

/// A source's end of the channel to the store. Clones speak for the same source.
///
/// The channel is bounded: a source that is faster than the store waits. Each method that waits is cancel safe in the
/// sense that a dropped future has said either all or nothing. When the store is gone, what is said is dropped.
#[derive(Debug, Clone)]
pub struct Sink {
    source: usize,
    messages: mpsc::Sender<Message>,
    state: Arc<SourceState>,
}

impl Sink {
    pub(crate) fn new(source: usize, messages: mpsc::Sender<Message>, state: Arc<SourceState>) -> Self {
        Self { source, messages, state }
    }

    /// The object contributes this, in place of whatever it contributed before. `observed` is when the source saw the
    /// change: where the clock of convergence starts.
    pub async fn upsert(&self, resource: ResourceRef, contribution: Contribution, observed: Instant) {
        self.apply(vec![Change::Upsert(resource, contribution)], observed).await;
    }

    /// The object contributes nothing any more.
    pub async fn remove(&self, resource: &ResourceRef, observed: Instant) {
        self.apply(vec![Change::Remove(resource.clone())], observed).await;
    }

    /// Everything that this source has to say: what it said of other objects before is forgotten.
    pub async fn replace_all(&self, all: Vec<(ResourceRef, Contribution)>, observed: Instant) {
        self.say(Said::All(all), observed).await;
    }

    /// Several changes that are seen together: no snapshot shows some of them without the others.
    pub async fn apply(&self, changes: Vec<Change>, observed: Instant) {
        if !changes.is_empty() {
            self.say(Said::Changes(changes), observed).await;
        }
    }

    /// The source's first full picture has been said. Calls after the first change nothing.
    pub fn synced(&self) {
        self.state.synced_after.fetch_min(self.state.sent.load(Ordering::SeqCst), Ordering::SeqCst);
        self.state.wake.notify_one();
    }

    /// Whether the source is in touch with its origin. Content never depends on it.
    pub fn fresh(&self, is_fresh: bool) {
        if self.state.fresh.swap(is_fresh, Ordering::SeqCst) != is_fresh {
            self.state.wake.notify_one();
        }
    }

    async fn say(&self, said: Said, observed: Instant) {
        let Ok(permit) = self.messages.reserve().await else {
            tracing::debug!(source = self.state.name, "the store has ended; what a source says is dropped");
            return;
        };
        // Counted before it is sent and with no await between: whoever reads the count afterwards knows that the
        // store has seen this message once it has seen so many.
        self.state.sent.fetch_add(1, Ordering::SeqCst);
        permit.send(Message { source: self.source, said, observed });
    }
}

/// What travels to the store.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) source: usize,
    pub(crate) said: Said,
    pub(crate) observed: Instant,
}

#[derive(Debug)]
pub(crate) enum Said {
    Changes(Vec<Change>),
    All(Vec<(ResourceRef, Contribution)>),
}

/// What a source's sinks and the store share.
#[derive(Debug)]
pub(crate) struct SourceState {
    pub(crate) name: &'static str,
    sent: AtomicU64,
    /// The source is synced once the store has seen this many of its messages; `u64::MAX` until it says so.
    synced_after: AtomicU64,
    fresh: AtomicBool,
    wake: Arc<Notify>,
}

impl SourceState {
    pub(crate) fn new(name: &'static str, wake: Arc<Notify>) -> Self {
        Self {
            name,
            sent: AtomicU64::new(0),
            synced_after: AtomicU64::new(u64::MAX),
            fresh: AtomicBool::new(false),
            wake,
        }
    }

    pub(crate) fn is_synced(&self, seen: u64) -> bool {
        seen >= self.synced_after.load(Ordering::SeqCst)
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::SeqCst)
    }
}
