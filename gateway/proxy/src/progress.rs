//! Which generation of the table every worker can use.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::Histogram;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::table::RoutingTable;

/// What the workers have reported.
pub(crate) struct Progress {
    usable: Vec<AtomicU64>,
    publishing: watch::Sender<u64>,
    convergence: Histogram,
}

impl Progress {
    /// For so many workers; told to `publishing` and, how long it took, to `convergence`.
    pub(crate) fn new(workers: usize, publishing: watch::Sender<u64>, convergence: Histogram) -> Self {
        Self { usable: (0..workers).map(|_| AtomicU64::new(0)).collect(), publishing, convergence }
    }

    /// Worker number `index` can use this table. The last worker to do so publishes its generation.
    pub(crate) fn report(&self, index: usize, table: &RoutingTable) {
        // In one order for all, so that of two workers who report at once the later sees both.
        self.usable[index].store(table.generation(), Ordering::SeqCst);
        let all = self.usable.iter().map(|usable| usable.load(Ordering::SeqCst)).min().unwrap_or_default();
        let advanced = self.publishing.send_if_modified(|published| {
            let advances = all > *published;
            *published = all.max(*published);
            advances
        });
        if advanced
            && all == table.generation()
            && let Some(changed_at) = table.snapshot().changed_at
        {
            let took = Instant::now().saturating_duration_since(Instant::from_std(changed_at));
            self.convergence.observe(took.as_secs_f64());
        }
    }
}
