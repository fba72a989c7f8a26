//! The time as a worker's requests see it, read from the system once for each time that the worker wakes up.
//!
//! Problem: a request notes a dozen instants, and each costs as much as picking an endpoint. Choice: all that a worker
//! does between two sleeps counts as done at the moment in which it first asked for the time. What that costs is
//! exactness: an instant may be as old as one round of the worker's work, some hundred microseconds under full load.
//! Time-outs are longer than that by far; where it matters (the duration of a request) [`Clock::refresh`] looks anew.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// Tells the worker's clocks that it woke up. The runtime asks for something that could be shared with other threads;
/// this is not, and nobody else writes near it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waking(Arc<Round>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Round(AtomicU64);

/// One worker's clock. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    waking: Waking,
    /// The round in which it was last read.
    round: Cell<u64>,
    now: Cell<Instant>,
}

impl Waking {
    /// The worker woke up. Only its own thread may say so.
    pub(crate) fn woke(&self) {
        self.0.0.store(self.round().wrapping_add(1), Relaxed);
    }

    fn round(&self) -> u64 {
        self.0.0.load(Relaxed)
    }
}

impl Clock {
    /// The clock of the worker that wakes up like this.
    pub(crate) fn new(waking: Waking) -> Self {
        let (round, now) = (Cell::new(waking.round()), Cell::new(Instant::now()));
        Self(Rc::new(Inner { waking, round, now }))
    }

    /// The time at which this was first asked since the worker woke up.
    pub(crate) fn now(&self) -> Instant {
        if self.0.round.get() == self.0.waking.round() { self.0.now.get() } else { self.refresh() }
    }

    /// The time now; also what [`Clock::now`] says from here on.
    pub(crate) fn refresh(&self) -> Instant {
        let now = Instant::now();
        self.0.round.set(self.0.waking.round());
        self.0.now.set(now);
        now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_until_the_worker_wakes_up_or_someone_looks_anew() {
        let waking = Waking::default();
        let clock = Clock::new(waking.clone());
        let began = clock.now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), began);
        waking.woke();
        assert_eq!(clock.now() - began, Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.refresh() - began, Duration::from_secs(2));
        assert_eq!(clock.now() - began, Duration::from_secs(2));
    }
}
