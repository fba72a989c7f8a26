//! The store under a clock that stands still.

use portolan_model::{Cluster, ClusterId, Contribution, Endpoint, Finding, ResourceRef};
use tokio::time::{advance, timeout};

use super::*;

const NAME: &str = "scripted";

fn resource(name: &str) -> ResourceRef {
    ResourceRef::new("Service", "shop", name)
}

fn said(name: &str, last: u8) -> Contribution {
    let cluster = Cluster {
        id: ClusterId::new("shop", name, 80),
        source: resource(name),
        endpoints: (1..=last).map(|n| Endpoint::new(([10, 0, 0, n], 80).into())).collect(),
        policy: Arc::default(),
    };
    Contribution { clusters: vec![Arc::new(cluster)], ..Contribution::default() }
}

fn faulty(name: &str) -> Contribution {
    let finding = Finding::error(&resource(name), "spec.ports", "NoPort", "no port");
    Contribution { findings: vec![finding], ..said(name, 1) }
}

/// A running store with one source that nobody waits for.
fn start() -> (Sink, Discovered) {
    start_with(false)
}

fn start_with(required: bool) -> (Sink, Discovered) {
    let mut store = Store::new();
    let sink = store.sink(NAME, required);
    let discovered = store.subscribe();
    tokio::spawn(store.run());
    (sink, discovered)
}

fn endpoints(snapshot: &Snapshot, name: &str) -> usize {
    snapshot.clusters.get(&ClusterId::new("shop", name, 80)).map_or(0, |it| it.endpoints.len())
}

async fn next(discovered: &mut Discovered) -> Arc<Snapshot> {
    let changed = timeout(Duration::from_secs(1), discovered.snapshots.changed()).await;
    changed.expect("a snapshot comes").expect("the store runs");
    discovered.snapshots.borrow_and_update().clone()
}

#[tokio::test(start_paused = true)]
async fn a_change_after_quiet_is_published_at_once() {
    let (sink, mut discovered) = start();
    for last in 1..=5 {
        advance(Duration::from_secs(1)).await;
        let observed = Instant::now();
        sink.upsert(resource("a"), said("a", last), observed).await;
        let snapshot = next(&mut discovered).await;
        assert!(observed.elapsed() <= Duration::from_millis(1), "{:?}", observed.elapsed());
        assert_eq!(endpoints(&snapshot, "a"), usize::from(last));
        assert_eq!(snapshot.generation, u64::from(last));
        assert_eq!(snapshot.changed_at, (last > 1).then_some(observed.into_std()));
    }
}

#[tokio::test(start_paused = true)]
async fn under_churn_there_is_at_most_one_in_five_milliseconds_and_the_last_change_is_shown_soon() {
    let (sink, mut discovered) = start();
    let began = Instant::now();
    let watcher = tokio::spawn(async move {
        let mut published = Vec::new();
        loop {
            let snapshot = next(&mut discovered).await;
            published.push(Instant::now());
            if endpoints(&snapshot, "last") == 7 {
                return published;
            }
        }
    });
    for step in 0_u8..200 {
        sink.upsert(resource("a"), said("a", step), Instant::now()).await;
        advance(Duration::from_millis(1)).await;
    }
    let last = Instant::now();
    sink.upsert(resource("last"), said("last", 7), last).await;
    let published = watcher.await.unwrap();
    for pair in published.windows(2) {
        assert!(pair[1] - pair[0] >= PUBLISH_INTERVAL, "{:?}", pair[1] - pair[0]);
    }
    assert!(published.len() >= 25, "it goes on all the while: {} in {:?}", published.len(), began.elapsed());
    let delay = *published.last().unwrap() - last;
    assert!(delay <= PUBLISH_INTERVAL + Duration::from_millis(1), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_does_not_hold_the_snapshot_back() {
    let (sink, mut discovered) = start();
    let flood = tokio::spawn(async move {
        for step in 0_u32.. {
            sink.upsert(resource("a"), said("a", (step % 200) as u8), Instant::now()).await;
            if step % 16 == 0 {
                advance(Duration::from_millis(1)).await;
            }
        }
    });
    for _ in 0..10 {
        next(&mut discovered).await;
    }
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn equal_snapshots_are_silent_and_the_oldest_change_starts_the_clock() {
    let (sink, mut discovered) = start();
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    let first = next(&mut discovered).await;

    // The same, and there and back within one interval.
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    sink.upsert(resource("a"), said("a", 2), Instant::now()).await;
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    advance(Duration::from_secs(1)).await;
    assert!(!discovered.snapshots.has_changed().unwrap());

    sink.upsert(resource("b"), said("b", 1), Instant::now()).await;
    let second = next(&mut discovered).await;
    assert_eq!(second.generation, first.generation + 1);
    let id = ClusterId::new("shop", "a", 80);
    assert!(Arc::ptr_eq(&first.clusters[&id], &second.clusters[&id]), "what did not change keeps its Arc");

    // A change that says nothing new is not the oldest one.
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    advance(Duration::from_millis(1)).await;
    let oldest = Instant::now();
    sink.upsert(resource("a"), said("a", 3), oldest).await;
    advance(Duration::from_millis(1)).await;
    sink.upsert(resource("a"), said("a", 4), Instant::now()).await;
    let third = next(&mut discovered).await;
    assert_eq!(endpoints(&third, "a"), 4);
    assert_eq!(third.changed_at, Some(oldest.into_std()));
}

#[tokio::test(start_paused = true)]
async fn changes_said_together_are_seen_together() {
    let (sink, mut discovered) = start();
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    next(&mut discovered).await;
    let changes = vec![Change::Remove(resource("a")), Change::Upsert(resource("b"), said("b", 1))];
    sink.apply(changes, Instant::now()).await;
    let snapshot = next(&mut discovered).await;
    assert_eq!((endpoints(&snapshot, "a"), endpoints(&snapshot, "b")), (0, 1));
    sink.replace_all(vec![(resource("c"), said("c", 1))], Instant::now()).await;
    let snapshot = next(&mut discovered).await;
    assert_eq!((endpoints(&snapshot, "b"), endpoints(&snapshot, "c")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn ready_once_every_required_source_is_in_the_snapshot_and_from_then_on() {
    let mut store = Store::new();
    let (one, two) = (store.sink("one", true), store.sink("two", true));
    let optional = store.sink("optional", false);
    let mut discovered = store.subscribe();
    tokio::spawn(store.run());

    // More than the channel holds.
    for n in 0_u16..3000 {
        let name = format!("s{n}");
        one.upsert(resource(&name), said(&name, 1), Instant::now()).await;
    }
    one.synced();
    advance(Duration::from_millis(20)).await;
    assert!(discovered.sources.borrow()[0].synced);
    assert!(!discovered.is_ready(), "two has not spoken");

    two.upsert(resource("two"), said("two", 2), Instant::now()).await;
    two.synced();
    discovered.ready().await;
    let snapshot = discovered.snapshots.borrow_and_update().clone();
    assert_eq!(endpoints(&snapshot, "two"), 2, "what it said is published by the time it counts as synced");
    assert_eq!(snapshot.clusters.len(), 3001);
    assert!(!discovered.sources.borrow()[2].synced, "the optional one is not waited for");

    two.fresh(true);
    two.fresh(false);
    drop((one, two, optional));
    advance(Duration::from_secs(60)).await;
    assert!(discovered.is_ready());
    assert_eq!(discovered.snapshots.borrow().clusters.len(), 3001, "sources that ended leave what they said");
}

#[tokio::test(start_paused = true)]
async fn the_first_picture_is_whole() {
    let (sink, mut discovered) = start_with(true);
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    advance(Duration::from_secs(60)).await;
    assert_eq!(discovered.snapshots.borrow().generation, 0, "half a picture is not shown");
    sink.upsert(resource("b"), said("b", 1), Instant::now()).await;
    sink.synced();
    let first = next(&mut discovered).await;
    assert_eq!((first.generation, first.clusters.len(), first.changed_at), (1, 2, None));
}

#[tokio::test(start_paused = true)]
async fn sources_with_nothing_to_say_make_the_first_generation_too() {
    let (sink, mut discovered) = start_with(true);
    assert_eq!(discovered.snapshots.borrow().generation, 0);
    sink.replace_all(Vec::new(), Instant::now()).await;
    sink.synced();
    discovered.ready().await;
    assert_eq!(discovered.snapshots.borrow().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn freshness_is_told_and_changes_no_content() {
    let (sink, mut discovered) = start();
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    let before = next(&mut discovered).await;
    for is_fresh in [true, false, true] {
        sink.fresh(is_fresh);
        let told = discovered.sources.wait_for(|sources| sources[0].fresh == is_fresh);
        timeout(Duration::from_secs(1), told).await.unwrap().unwrap();
    }
    assert!(Arc::ptr_eq(&before, &discovered.snapshots.borrow()));
}

#[tokio::test(start_paused = true)]
async fn findings_that_stay_are_told_and_counted() {
    let mut store = Store::new();
    let registry = prometheus::Registry::new();
    store.register(&registry).unwrap();
    let sink = store.sink(NAME, true);
    let mut discovered = store.subscribe();
    tokio::spawn(store.run());
    let count = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|it| it.name() == name)?;
        family.get_metric().first().map(|it| it.get_gauge().get_value() as i64)
    };

    // Healed at once: never told.
    sink.upsert(resource("a"), faulty("a"), Instant::now()).await;
    advance(Duration::from_millis(10)).await;
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    advance(Duration::from_secs(1)).await;
    assert!(!discovered.findings.has_changed().unwrap());

    sink.upsert(resource("a"), faulty("a"), Instant::now()).await;
    timeout(Duration::from_secs(1), discovered.findings.changed()).await.unwrap().unwrap();
    assert_eq!(discovered.findings.borrow_and_update().len(), 1);
    assert_eq!(count("portolan_discovery_objects"), Some(1));

    sink.remove(&resource("a"), Instant::now()).await;
    timeout(Duration::from_secs(1), discovered.findings.changed()).await.unwrap().unwrap();
    assert!(discovered.findings.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_may_outlive_the_store() {
    let mut store = Store::new();
    let sink = store.sink(NAME, true);
    let running = tokio::spawn(store.run());
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    sink.upsert(resource("a"), said("a", 1), Instant::now()).await;
    sink.synced();
}

fn last_picture(names: &[&str]) -> LastPicture {
    let taken = Taken {
        at: jiff::Timestamp::now(),
        generation: 41,
        version: "0.1.0".into(),
        origin: std::collections::BTreeMap::new(),
    };
    let clusters = names.iter().flat_map(|name| said(name, 1).clusters).map(|it| (it.id.clone(), it));
    LastPicture { taken, routes: imbl::OrdMap::new(), clusters: clusters.collect() }
}

/// The `settings`, a source that is away, and a picture of before with these clusters.
fn start_restored(names: &[&str]) -> (Sink, Sink, Discovered) {
    let mut store = Store::new();
    let (settings, away) = (store.sink("settings", true), store.sink(NAME, true));
    store.restore(NAME, last_picture(names), Duration::from_secs(1));
    let discovered = store.subscribe();
    tokio::spawn(store.run());
    (settings, away, discovered)
}

fn listener() -> Contribution {
    let listener = portolan_model::Listener {
        id: portolan_model::ListenerId::new("edge"),
        bind: ([127, 0, 0, 1], 80).into(),
        role: portolan_model::Role::Edge,
        protocol: portolan_model::Protocol::Http,
    };
    Contribution { listeners: vec![Arc::new(listener)], ..Contribution::default() }
}

#[tokio::test(start_paused = true)]
async fn while_a_source_is_away_the_picture_of_before_is_shown_with_the_listeners_of_now() {
    let (settings, away, mut discovered) = start_restored(&["a", "b"]);
    settings.upsert(resource("listen"), listener(), Instant::now()).await;
    settings.synced();
    let began = Instant::now();
    timeout(Duration::from_secs(60), discovered.ready()).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(1001), "{:?}", began.elapsed());
    let restored = next(&mut discovered).await;
    assert_eq!((restored.generation, restored.listeners.len(), restored.clusters.len()), (1, 1, 2));
    assert_eq!(discovered.restored.borrow().as_ref().unwrap().generation, 41);

    // Half of what the source says is not shown, however long it takes.
    away.upsert(resource("a"), said("a", 1), Instant::now()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!discovered.snapshots.has_changed().unwrap());
    away.upsert(resource("c"), said("c", 2), Instant::now()).await;
    let watched = discovered.clone();
    let always_ready = tokio::spawn(async move {
        let mut sources = watched.sources.clone();
        loop {
            assert!(watched.is_ready());
            if watched.is_own() && watched.restored.borrow().is_none() {
                return;
            }
            sources.changed().await.unwrap();
        }
    });
    away.synced();
    let own = next(&mut discovered).await;
    assert_eq!((own.generation, own.changed_at, own.listeners.len()), (2, None, 1));
    assert_eq!((endpoints(&own, "a"), endpoints(&own, "b"), endpoints(&own, "c")), (1, 0, 2));
    let id = ClusterId::new("shop", "a", 80);
    assert!(Arc::ptr_eq(&restored.clusters[&id], &own.clusters[&id]), "what is equal keeps its Arc");
    discovered.restored.wait_for(Option::is_none).await.unwrap();
    timeout(Duration::from_secs(1), always_ready).await.unwrap().unwrap();

    let observed = Instant::now();
    away.upsert(resource("a"), said("a", 3), observed).await;
    assert_eq!(next(&mut discovered).await.changed_at, Some(observed.into_std()));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_answers_in_time_makes_the_first_picture() {
    let (settings, present, mut discovered) = start_restored(&["a"]);
    settings.synced();
    present.upsert(resource("b"), said("b", 1), Instant::now()).await;
    present.synced();
    let first = next(&mut discovered).await;
    assert_eq!((first.generation, endpoints(&first, "a"), endpoints(&first, "b")), (1, 0, 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!discovered.snapshots.has_changed().unwrap());
    assert!(discovered.restored.borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_picture_of_before_waits_for_everything_but_its_own_source() {
    let (settings, _away, mut discovered) = start_restored(&["a"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!discovered.is_ready(), "there would be no listener");
    settings.upsert(resource("listen"), listener(), Instant::now()).await;
    settings.synced();
    assert_eq!(next(&mut discovered).await.listeners.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_nothing_to_say_empties_the_picture_of_before() {
    let (settings, away, mut discovered) = start_restored(&["a"]);
    settings.synced();
    discovered.ready().await;
    assert_eq!(next(&mut discovered).await.clusters.len(), 1);
    away.replace_all(Vec::new(), Instant::now()).await;
    away.synced();
    let own = next(&mut discovered).await;
    assert_eq!((own.generation, own.clusters.len()), (2, 0));
    discovered.restored.wait_for(Option::is_none).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_says_what_was_restored_changes_nothing_but_whose_it_is() {
    let (settings, away, mut discovered) = start_restored(&["a"]);
    settings.synced();
    discovered.ready().await;
    next(&mut discovered).await;
    away.upsert(resource("a"), said("a", 1), Instant::now()).await;
    away.synced();
    discovered.restored.wait_for(Option::is_none).await.unwrap();
    assert!(discovered.is_own() && !discovered.snapshots.has_changed().unwrap());
    let observed = Instant::now();
    away.upsert(resource("a"), said("a", 2), observed).await;
    let changed = next(&mut discovered).await;
    assert_eq!((changed.generation, changed.changed_at), (2, Some(observed.into_std())));
}
