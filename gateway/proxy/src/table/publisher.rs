//! The single writer of the routing table.
//!
//! Make before break, always in this order: clusters first (created, or given their new state in one swap each), then
//! the table in one swap, then what went is marked retired, and last everybody who waits for the generation is woken.
//! A request that began before goes on with the table it has.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_model::{Finding, Snapshot};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::RoutingTable;
use crate::cluster::Clusters;

/// How long an old table may wait to be dropped here when no new one comes.
const DROP_PAUSE: Duration = Duration::from_secs(1);

/// Turns snapshots into tables. Runs on the control runtime.
pub struct Publisher {
    table: Arc<ArcSwap<RoutingTable>>,
    clusters: Clusters,
    generation: watch::Sender<u64>,
    retirements: watch::Sender<u64>,
    findings: watch::Sender<Arc<Vec<Finding>>>,
    observe: Box<dyn FnMut(&Publication) + Send>,
    /// Tables that workers may still hold: the last reference is dropped here, not on a worker.
    old: Vec<Arc<RoutingTable>>,
}

/// What the publisher has published, for readers. Clones share it.
#[derive(Debug, Clone)]
pub struct Published {
    /// The table in use. A worker reads it through an `arc_swap::Cache`, which touches no shared counter while the
    /// table stays.
    pub table: Arc<ArcSwap<RoutingTable>>,
    /// The generation of the table that every worker can use; changes after everything else is in place. One receiver
    /// per worker wakes it.
    pub generation: watch::Receiver<u64>,
    /// Grows when an endpoint or cluster was retired: the time to look for idle connections to close.
    pub retirements: watch::Receiver<u64>,
    /// What could not be compiled.
    pub findings: watch::Receiver<Arc<Vec<Finding>>>,
}

/// One swap, for metrics.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The generation that is now in use.
    pub generation: u64,
    /// From taking the snapshot to the swap of the table.
    pub swap: Duration,
    /// From the oldest change in the snapshot being received from its source to the swap; none for a snapshot that
    /// does not tell.
    pub convergence: Option<Duration>,
    /// Whether routes were compiled, or only endpoints changed.
    pub compiled: bool,
}

impl Publisher {
    /// A publisher with the empty table in use. `observe` is told of each swap and must be quick.
    pub fn new(observe: impl FnMut(&Publication) + Send + 'static) -> (Self, Published) {
        let table = Arc::new(ArcSwap::from_pointee(RoutingTable::empty()));
        let (generation, generation_seen) = watch::channel(0);
        let (retirements, retirements_seen) = watch::channel(0);
        let (findings, findings_seen) = watch::channel(Arc::default());
        let published = Published {
            table: Arc::clone(&table),
            generation: generation_seen,
            retirements: retirements_seen,
            findings: findings_seen,
        };
        let clusters = Clusters::default();
        let observe = Box::new(observe);
        (Self { table, clusters, generation, retirements, findings, observe, old: Vec::new() }, published)
    }

    /// Publishes each snapshot that comes, the latest first, until the sender is gone. Dropping the future leaves the
    /// last table in use.
    pub async fn run(mut self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut pause = interval(DROP_PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = Arc::clone(&snapshots.borrow_and_update());
        self.publish(&first);
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    self.publish(&snapshot);
                }
                _ = pause.tick(), if !self.old.is_empty() => self.drop_old(),
            }
        }
    }

    /// Puts the table of this snapshot in use. A generation that is in use already changes nothing.
    pub fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        let began = Instant::now();
        let before = self.table.load_full();
        if before.generation() == snapshot.generation {
            return;
        }
        let departed = self.clusters.follow(before.snapshot(), snapshot, began);
        let (table, findings) = RoutingTable::compile(snapshot, &self.clusters, &before, began);
        let compiled = !table.same_routes(&before);
        self.table.store(Arc::new(table));
        let swapped = Instant::now();
        if !departed.is_empty() {
            departed.retire();
            self.retirements.send_modify(|count| *count += 1);
        }
        self.generation.send_replace(snapshot.generation);
        if compiled {
            self.findings.send_replace(findings);
        }
        self.old.push(before);
        (self.observe)(&Publication {
            generation: snapshot.generation,
            swap: swapped - began,
            convergence: snapshot
                .changed_at
                .map(|at| swapped.saturating_duration_since(Instant::from_std(at))),
            compiled,
        });
        self.drop_old();
    }

    /// Lets go of the tables that nobody else holds any more.
    fn drop_old(&mut self) {
        self.old.retain(|table| Arc::strong_count(table) > 1);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("generation", &*self.generation.borrow()).finish_non_exhaustive()
    }
}
