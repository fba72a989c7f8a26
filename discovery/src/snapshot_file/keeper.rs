//! The one task that writes the file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_model::{Finding, ResourceRef, Snapshot};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{FileMetrics, Origin, Refusal, Taken};
use crate::store::Discovered;

/// A change is written so soon after it, together with those that come meanwhile.
const GATHER: Duration = Duration::from_millis(100);
/// From the start of one write to the start of the next, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// And at least so many times as long as a write takes: a large file does not keep a core or a disk busy.
const PAUSE_FACTOR: u32 = 10;
/// After a failure, unless a change comes before.
const RETRY: Duration = Duration::from_secs(10);
/// The file's time is renewed this often within the time that it may grow old in, but not more often than …
const RENEWALS: u32 = 10;
/// … this, and not less often than …
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);
/// … this.
const LONGEST_RENEWAL: Duration = Duration::from_secs(300);

/// Keeps the file in step with what the store publishes, for as long as it [runs](Self::run).
///
/// It writes nothing while the picture itself comes from the file: the file then is as good as it can be.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    renewal: Duration,
    discovered: Discovered,
    origin: watch::Receiver<Arc<Origin>>,
    findings: watch::Sender<Arc<Vec<Finding>>>,
    metrics: FileMetrics,
    /// When the picture was last known to be right.
    right_at: Timestamp,
    in_touch: bool,
    /// The generation and the origin that the file has.
    written: Option<(u64, Arc<Origin>)>,
    /// When to write though nothing changed.
    renew_at: Option<Instant>,
    not_before: Instant,
}

impl Keeper {
    /// A keeper of the file at `path` that has written nothing. `origin` is what a file written now is taken from,
    /// `max_age` how old it may grow.
    pub fn new(
        path: PathBuf,
        max_age: Duration,
        discovered: Discovered,
        origin: watch::Receiver<Arc<Origin>>,
        metrics: FileMetrics,
    ) -> Self {
        Self {
            path,
            renewal: (max_age / RENEWALS).clamp(SHORTEST_RENEWAL, LONGEST_RENEWAL),
            discovered,
            origin,
            findings: watch::Sender::default(),
            metrics,
            right_at: Timestamp::now(),
            in_touch: false,
            written: None,
            renew_at: None,
            not_before: Instant::now(),
        }
    }

    /// Why the file is of no use as it is, if it is so.
    pub fn findings(&self) -> watch::Receiver<Arc<Vec<Finding>>> {
        self.findings.subscribe()
    }

    /// Tells what the file has that was found at the start.
    pub fn found(&self, taken: &Taken) {
        self.metrics.show(taken.at);
    }

    /// Tells that the file was refused at the start. It stands until a good one is in its place.
    pub fn refused(&self, refusal: &Refusal) {
        let message =
            format!("the snapshot file {} was not used at the start: {refusal}", self.path.display());
        tell(&self.findings, "SnapshotRefused", message);
    }

    /// Writes what is published, until the store ends. Dropping the future stops the writing; a write that has begun
    /// ends by itself.
    pub async fn run(mut self) {
        while self.wait().await.is_ok() {
            self.look();
            if self.has_news() {
                sleep_until(self.not_before.max(Instant::now() + GATHER)).await;
                self.look();
                self.write().await;
            }
        }
    }

    /// Waits until something may have to be written.
    async fn wait(&mut self) -> Result<(), watch::error::RecvError> {
        let renew_at = self.renew_at.filter(|_| self.owns_picture());
        let Discovered { snapshots, sources, restored, .. } = &mut self.discovered;
        tokio::select! {
            changed = snapshots.changed() => changed,
            changed = sources.changed() => changed,
            changed = restored.changed() => changed,
            Ok(()) = self.origin.changed() => Ok(()),
            () = sleep_until(renew_at.unwrap_or_else(Instant::now)), if renew_at.is_some() => Ok(()),
        }
    }

    /// Notes whether the picture is known to be right at this moment.
    fn look(&mut self) {
        let in_touch = self.discovered.is_in_touch();
        if in_touch || self.in_touch {
            self.right_at = Timestamp::now();
        }
        // The file's time begins to stand still, or to go on again: it should have the moment.
        if self.in_touch != in_touch {
            self.renew_at = Some(Instant::now());
        }
        self.in_touch = in_touch;
    }

    /// Whether the picture is the sources' own, and so better than the one in the file.
    fn owns_picture(&self) -> bool {
        self.discovered.restored.borrow().is_none() && self.discovered.is_own()
    }

    fn has_news(&self) -> bool {
        if !self.owns_picture() {
            return false;
        }
        let snapshot = self.discovered.snapshots.borrow();
        let origin = self.origin.borrow();
        let is_written = |(generation, from): &(u64, Arc<Origin>)| {
            *generation == snapshot.generation && **from == **origin
        };
        self.renew_at.is_some_and(|at| at <= Instant::now()) || !self.written.as_ref().is_some_and(is_written)
    }

    async fn write(&mut self) {
        let snapshot = Arc::clone(&self.discovered.snapshots.borrow_and_update());
        let origin = Arc::clone(&self.origin.borrow_and_update());
        let (path, at) = (self.path.clone(), self.right_at);
        let began = Instant::now();
        let (file, picture, from) = (path, Arc::clone(&snapshot), Arc::clone(&origin));
        let outcome = tokio::task::spawn_blocking(move || super::write(&file, &picture, at, &from)).await;
        let took = began.elapsed();
        self.not_before = began + PAUSE.max(took * PAUSE_FACTOR);
        match outcome.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(bytes) => self.is_written(&snapshot, origin, bytes, took),
            Err(error) => self.has_failed(&error),
        }
    }

    fn is_written(&mut self, snapshot: &Snapshot, origin: Arc<Origin>, bytes: u64, took: Duration) {
        tracing::debug!(generation = snapshot.generation, bytes, ?took, "the snapshot file is written");
        self.metrics.writes.inc();
        self.metrics.show(self.right_at);
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.written = Some((snapshot.generation, origin));
        self.renew_at = self.in_touch.then(|| Instant::now() + self.renewal);
        self.findings.send_if_modified(|findings| {
            let had_any = !findings.is_empty();
            *findings = Arc::default();
            had_any
        });
    }

    fn has_failed(&mut self, error: &io::Error) {
        self.metrics.failures.inc();
        self.renew_at = Some(Instant::now() + RETRY);
        let message = format!(
            "the snapshot file {} cannot be written: {error}. A gateway that is restarted while its source is away \
             would start from an older picture or not at all. Give it a folder that it may write to, with room for two \
             such files, or turn snapshot-file off; it is tried again by itself",
            self.path.display()
        );
        tell(&self.findings, "SnapshotNotWritten", message);
    }
}

/// One finding, which is logged when it is new.
fn tell(findings: &watch::Sender<Arc<Vec<Finding>>>, reason: &'static str, message: String) {
    let setting = ResourceRef::new("Setting", "", "snapshot-file");
    let finding = Finding::warning(&setting, "snapshot-file", reason, message);
    findings.send_if_modified(|findings| {
        let is_new = findings.first() != Some(&finding);
        if is_new {
            tracing::warn!(%finding, "the snapshot file is of no use as it is");
            *findings = Arc::new(vec![finding]);
        }
        is_new
    });
}
