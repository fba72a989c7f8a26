//! Tells that something changed below a folder.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// A change is read once nothing more has changed for this long, so that a file written in parts is read whole.
const SETTLE: Duration = Duration::from_millis(20);
/// But at the latest after this long.
const SETTLE_LIMIT: Duration = Duration::from_millis(200);
/// Looks around this often without being told: notifications can be lost, and some file systems send none.
const LOOK_AROUND: Duration = Duration::from_secs(2);

/// Watches a folder and everything below it, also if the folder is replaced by another of the same name.
#[derive(Debug)]
pub(super) struct Watcher {
    root: PathBuf,
    watched: Option<Watched>,
    /// When something changed; one place is enough, since the reader looks at everything.
    changes: mpsc::Receiver<Instant>,
    sender: mpsc::Sender<Instant>,
}

#[derive(Debug)]
struct Watched {
    identity: (u64, u64),
    _watcher: RecommendedWatcher,
}

impl Watcher {
    pub(super) fn new(root: &Path) -> Self {
        let (sender, changes) = mpsc::channel(1);
        Self { root: root.to_owned(), watched: None, changes, sender }
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
        let sender = self.sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may mean that events were lost, so it counts as a change. A full channel has one waiting.
            if event.map_or(true, |event| is_change(event.kind)) && sender.try_send(Instant::now()).is_err() {
                tracing::trace!("a change is being told already");
            }
        })?;
        watcher.watch(&self.root, RecursiveMode::Recursive)?;
        Ok(watcher)
    }

    /// Waits until something may have changed and the change has settled; returns when the first of it was seen. Waits
    /// for no longer than `limit`, if there is one.
    pub(super) async fn changed(&mut self, limit: Option<Duration>) -> Instant {
        let limit = limit.map_or(LOOK_AROUND, |limit| limit.min(LOOK_AROUND));
        let Ok(Some(first)) = timeout(limit, self.changes.recv()).await else { return Instant::now() };
        let limit = first + SETTLE_LIMIT;
        let mut quiet = Instant::now() + SETTLE;
        loop {
            tokio::select! {
                () = sleep_until(quiet.min(limit)) => return first,
                _ = self.changes.recv() => quiet = Instant::now() + SETTLE,
            }
        }
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
