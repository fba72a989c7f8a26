//! When each change can be used.
//!
//! Every change that the script yields waits here, in order, until a snapshot shows it; the moment at which every worker
//! can use that snapshot, or one after it, is the end of its time. So the content itself is looked at, and a change that
//! got lost would end the bench instead of making it fast.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use portolan_model::{Readiness, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, timeout};

use crate::fleet::Flip;

/// What the script tells.
#[derive(Debug)]
pub(crate) enum Yielded {
    Flip(Awaited),
    EndOfStep,
}

/// A change under way.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) flip: Flip,
    pub(crate) since: Instant,
}

/// Follows changes to the workers.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) yielded: mpsc::Receiver<Yielded>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) publishing: watch::Receiver<u64>,
}

/// What is known within one step.
#[derive(Debug)]
struct Ledger {
    awaited: VecDeque<Awaited>,
    /// Since when it runs, and the generation that shows it.
    shown: VecDeque<(Instant, u64)>,
    /// When each generation could be used.
    usable: Vec<(u64, Instant)>,
    times: Histogram<u64>,
}

impl Observer {
    /// Follows all changes of one step; gives their times in microseconds.
    pub(crate) async fn step(&mut self) -> Result<Histogram<u64>> {
        const STUCK: Duration = Duration::from_secs(20);
        let mut ledger = Ledger {
            awaited: VecDeque::new(),
            shown: VecDeque::new(),
            usable: Vec::new(),
            times: Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid"),
        };
        let mut ended = false;
        while !(ended && ledger.is_done()) {
            match timeout(STUCK, self.next(&mut ledger)).await {
                Ok(is_end) => ended |= is_end?,
                Err(_) => bail!("a change was not usable after {STUCK:?}: {:?}", ledger.awaited.front()),
            }
        }
        Ok(ledger.times)
    }

    /// Takes in what comes next; true at the end of the step.
    async fn next(&mut self, ledger: &mut Ledger) -> Result<bool> {
        tokio::select! {
            // A change is told before it can be in a snapshot: look there first.
            biased;
            yielded = self.yielded.recv() => match yielded.context("the script has ended")? {
                Yielded::Flip(awaited) => ledger.awaited.push_back(awaited),
                Yielded::EndOfStep => return Ok(true),
            },
            changed = self.publishing.changed() => {
                changed.context("the proxy has ended")?;
                let generation = *self.publishing.borrow_and_update();
                ledger.usable.push((generation, Instant::now()));
            }
            changed = self.snapshots.changed() => changed.context("the store has ended")?,
        }
        let snapshot = self.snapshots.borrow_and_update().clone();
        ledger.match_up(&snapshot);
        Ok(false)
    }
}

impl Ledger {
    fn is_done(&self) -> bool {
        self.awaited.is_empty() && self.shown.is_empty()
    }

    fn match_up(&mut self, snapshot: &Snapshot) {
        while let Some(first) = self.awaited.front()
            && first.flip.is_in(snapshot)
        {
            self.shown.push_back((first.since, snapshot.generation));
            self.awaited.pop_front();
        }
        while let Some((since, generation)) = self.shown.front() {
            let at = self.usable.partition_point(|(usable, _)| usable < generation);
            let Some((_, when)) = self.usable.get(at) else { break };
            let time = when.saturating_duration_since(*since);
            self.times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            self.shown.pop_front();
        }
    }
}

impl Flip {
    fn is_in(&self, snapshot: &Snapshot) -> bool {
        let Some(cluster) = snapshot.clusters.get(&self.cluster) else { return false };
        let at = cluster.endpoints.partition_point(|endpoint| endpoint.key.address < self.address);
        cluster.endpoints.get(at).is_some_and(|endpoint| {
            endpoint.key.address == self.address && (endpoint.readiness == Readiness::Ready) == self.ready
        })
    }
}
