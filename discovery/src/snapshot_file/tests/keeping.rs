//! The keeper under a clock that stands still.

use portolan_model::Contribution;
use prometheus::Registry;
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::source::Sink;
use crate::store::{Discovered, Store};

/// A store with a source, and a keeper of a file.
struct Kept {
    folder: tempfile::TempDir,
    sink: Sink,
    discovered: Discovered,
    findings: tokio::sync::watch::Receiver<Arc<Vec<portolan_model::Finding>>>,
    metrics: FileMetrics,
}

fn start(file: &str) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::new();
    let sink = store.sink("scripted", true);
    let discovered = store.subscribe();
    tokio::spawn(store.run());
    let origin = tokio::sync::watch::channel(Arc::new(origin())).1;
    let metrics = FileMetrics::register(&Registry::new()).unwrap();
    let path = folder.path().join(file);
    let keeper = Keeper::new(path, HOUR, discovered.clone(), origin, metrics.clone());
    let findings = keeper.findings();
    tokio::spawn(keeper.run());
    Kept { folder, sink, discovered, findings, metrics }
}

impl Kept {
    async fn say(&self, name: &str) {
        let picture = snapshot(1, 1);
        let cluster = picture.clusters.values().next().unwrap();
        let cluster = Arc::new(Cluster { id: ClusterId::new("shop", name, 80), ..Cluster::clone(cluster) });
        let said = Contribution { clusters: vec![cluster], ..Contribution::default() };
        self.sink.upsert(ResourceRef::new("Service", "shop", name), said, Instant::now()).await;
    }

    fn read(&self) -> Option<LastPicture> {
        read(&self.folder.path().join("snapshot"), &origin(), HOUR).unwrap()
    }

    /// Lets time pass until there have been so many writes.
    async fn written(&self, writes: u64) {
        let enough = async {
            while self.metrics.writes.get() < writes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(4000), enough).await.expect("it is written");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_whole_picture_is_written_soon_and_then_the_latest_once_a_second() {
    let kept = start("snapshot");
    kept.sink.fresh(true);
    kept.say("a").await;
    advance(Duration::from_secs(60)).await;
    assert_eq!(kept.metrics.writes.get(), 0, "half a picture is not kept");
    kept.sink.synced();
    let began = Instant::now();
    kept.written(1).await;
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(kept.read().unwrap().clusters.len(), 1);

    for number in 0..300 {
        kept.say(&format!("b{number}")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let writes = kept.metrics.writes.get() - 1;
    assert!((2..=4).contains(&writes), "{writes} writes in 3 s");
    kept.written(1 + writes + 1).await;
    assert_eq!(kept.read().unwrap().clusters.len(), 301, "the latest wins");
}

#[tokio::test(start_paused = true)]
async fn the_time_goes_on_in_touch_and_stands_still_out_of_touch() {
    let mut kept = start("snapshot");
    kept.sink.fresh(true);
    kept.say("a").await;
    kept.sink.synced();
    kept.written(1).await;
    let began = Instant::now();
    kept.written(2).await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(290) && waited < Duration::from_secs(310), "{waited:?}");

    // Real time stands beside the paused clock: only that the time grows or stays can be seen.
    let before = kept.read().unwrap().taken.at;
    kept.sink.fresh(false);
    kept.written(3).await;
    let lost = kept.read().unwrap().taken.at;
    assert!(lost > before, "the moment in which touch was lost is kept");
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(kept.metrics.writes.get(), 3, "nothing to tell while out of touch");
    kept.say("b").await;
    kept.written(4).await;
    let picture = kept.read().unwrap();
    assert_eq!((picture.taken.at, picture.clusters.len()), (lost, 2), "a change makes no picture younger");
    kept.sink.fresh(true);
    kept.written(5).await;
    assert!(kept.read().unwrap().taken.at > lost);
    assert_eq!(kept.discovered.snapshots.borrow_and_update().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_a_finding_until_it_can() {
    let mut kept = start("later/snapshot");
    kept.say("a").await;
    kept.sink.synced();
    kept.findings.changed().await.unwrap();
    let finding = kept.findings.borrow_and_update()[0].to_string();
    assert!(finding.contains("later/snapshot cannot be written: No such file"), "{finding}");
    assert_eq!(kept.metrics.failures.get(), 1);
    std::fs::create_dir(kept.folder.path().join("later")).unwrap();
    kept.written(1).await;
    assert!(kept.findings.borrow().is_empty());
}
