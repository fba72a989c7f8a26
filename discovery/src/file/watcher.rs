//! Tells that something changed below a folder.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// A change is read once nothing more has changed for this long, so that a file written in parts is read whole.
const SETTLE: Duration = Duration::from_millis(20);
/// A file that is renamed into its place is whole: it waits only for others that come with it.
const GATHER: Duration = Duration::from_millis(1);
/// But at the latest after this long.
const SETTLE_LIMIT: Duration = Duration::from_millis(200);
/// Where changes never end, so many times as long as the last look took passes before the next one, up to this long.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);
/// Looks around this often without being told: notifications can be lost, and some file systems send none.
const LOOK_AROUND: Duration = Duration::from_secs(2);

/// Watches a folder and everything below it, also if the folder is replaced by another of the same name.
#[derive(Debug)]
pub(super) struct Watcher {
    root: PathBuf,
    watched: Option<Watched>,
    changes: Arc<Changes>,
    /// Since when the reader looks at what it was told last.
    looking_since: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    identity: (u64, u64),
    _watcher: RecommendedWatcher,
}

/// What has changed and was not told yet; all in one, since the reader looks at everything.
#[derive(Debug, Default)]
struct Changes {
    unsettled: Mutex<Option<Unsettled>>,
    more: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Unsettled {
    first: Instant,
    /// When it counts as settled if nothing more changes.
    settled: Instant,
}

impl Watcher {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), watched: None, changes: Arc::default(), looking_since: None }
    }

    /// Watches the folder that has the name now. To be called before each look at the files, so that no change is
    /// missed between.
    pub(super) fn renew(&mut self) {
        let identity = std::fs::metadata(&self.root).ok().map(|it| (it.dev(), it.ino()));
        if self.watched.as_ref().map(|it| it.identity) == identity {
            return;
        }
        self.watched = identity.and_then(|identity| match self.watch() {
            Ok(watcher) => Some(Watched { identity, _watcher: watcher }),
            Err(error) => {
                let path = self.root.display();
                tracing::warn!(%path, %error, "changes of the folder are not notified; it is looked at every 2 s");
                None
            }
        });
    }

    fn watch(&self) -> notify::Result<RecommendedWatcher> {
        let changes = Arc::clone(&self.changes);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) if !is_change(event.kind) => {}
            Ok(event) => changes.add(if is_whole(event.kind) { GATHER } else { SETTLE }),
            // It may mean that events were lost, so it counts as a change.
            Err(_) => changes.add(SETTLE),
        })?;
        watcher.watch(&self.root, RecursiveMode::Recursive)?;
        Ok(watcher)
    }

    /// Waits until something may have changed and the change has settled; returns when the first of it was seen. Waits
    /// for no longer than `limit`, if there is one. What the caller does before the next call is the look at the files.
    pub(super) async fn changed(&mut self, limit: Option<Duration>) -> Instant {
        let now = Instant::now();
        let took = self.looking_since.take().map_or(Duration::ZERO, |since| now - since);
        let rested = now + took.saturating_mul(REST).min(LONGEST_REST);
        let observed = self.settled(limit.map_or(LOOK_AROUND, |limit| limit.min(LOOK_AROUND)), rested).await;
        self.looking_since = Some(Instant::now());
        observed
    }

    async fn settled(&self, limit: Duration, rested: Instant) -> Instant {
        let Ok(()) = timeout(limit, self.changes.any()).await else { return Instant::now() };
        loop {
            let Some(Unsettled { first, settled }) = self.changes.peek() else { return Instant::now() };
            let due = settled.min(first + SETTLE_LIMIT).max(rested);
            if due <= Instant::now() {
                self.changes.take();
                return first;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.changes.more.notified() => {}
            }
        }
    }
}

impl Changes {
    fn add(&self, settles_in: Duration) {
        let now = Instant::now();
        {
            let mut unsettled = self.locked();
            let first = unsettled.map_or(now, |unsettled| unsettled.first);
            *unsettled = Some(Unsettled { first, settled: now + settles_in });
        }
        self.more.notify_one();
    }

    async fn any(&self) {
        while self.peek().is_none() {
            self.more.notified().await;
        }
    }

    fn peek(&self) -> Option<Unsettled> {
        *self.locked()
    }

    fn take(&self) {
        self.locked().take();
    }

    fn locked(&self) -> MutexGuard<'_, Option<Unsettled>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reading, ours too, is no change; a writer that closes its file is.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn is_whole(kind: EventKind) -> bool {
    matches!(kind, EventKind::Modify(ModifyKind::Name(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher() -> Watcher {
        Watcher::new(Path::new("/"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_whole_is_told_at_once_and_what_may_not_be_when_it_is_still() {
        let mut watcher = watcher();
        let (began, changes) = (Instant::now(), Arc::clone(&watcher.changes));
        changes.add(GATHER);
        assert_eq!(watcher.changed(None).await, began);
        assert_eq!(began.elapsed(), GATHER);
        let began = Instant::now();
        changes.add(SETTLE);
        tokio::join!(watcher.changed(None), async {
            tokio::time::sleep(SETTLE / 2).await;
            changes.add(SETTLE);
        });
        assert_eq!(began.elapsed(), SETTLE + SETTLE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_without_end_are_told_within_the_limit() {
        let mut watcher = watcher();
        let (began, changes) = (Instant::now(), Arc::clone(&watcher.changes));
        let endless = async {
            loop {
                changes.add(SETTLE);
                tokio::time::sleep(SETTLE / 2).await;
            }
        };
        tokio::select! {
            observed = watcher.changed(None) => assert_eq!(observed, began),
            () = endless => {}
        }
        assert_eq!(began.elapsed(), SETTLE_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_takes_long_is_followed_by_a_rest() {
        let mut watcher = watcher();
        let look = Duration::from_millis(50);
        watcher.changes.add(GATHER);
        watcher.changed(None).await;
        tokio::time::sleep(look).await;
        let looked = Instant::now();
        watcher.changes.add(GATHER);
        watcher.changed(None).await;
        assert_eq!(looked.elapsed(), look * REST);
        // Nothing came for a while: there is no need to rest.
        tokio::time::sleep(look).await;
        watcher.changed(None).await;
        let began = Instant::now();
        watcher.changes.add(GATHER);
        watcher.changed(None).await;
        assert_eq!(began.elapsed(), GATHER);
    }
}
