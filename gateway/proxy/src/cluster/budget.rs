//! The retry budget: retries must not multiply an outage.
//!
//! Over a sliding window of ten seconds a worker allows as many retries as the policy's share of the requests that it
//! saw, or its part of the policy's floor, whichever is more. The window is kept in ten slots of a second.

use portolan_model::RetryPolicy;
use tokio::time::Instant;

const SLOTS: usize = 10;

/// One worker's budget for one cluster.
#[derive(Debug)]
pub(super) struct Budget {
    began: Instant,
    /// The second (since `began`) that the newest slot stands for.
    second: u64,
    requests: [u32; SLOTS],
    retries: [u32; SLOTS],
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, second: 0, requests: [0; SLOTS], retries: [0; SLOTS] }
    }

    /// Counts a request, not a retry.
    pub(super) fn request(&mut self, now: Instant) {
        let slot = self.slot(now);
        self.requests[slot] = self.requests[slot].saturating_add(1);
    }

    /// Whether one more retry is within the budget; counts it if so.
    pub(super) fn allow_retry(&mut self, policy: &RetryPolicy, workers: usize, now: Instant) -> bool {
        let slot = self.slot(now);
        let sum = |counts: &[u32; SLOTS]| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        let share = sum(&self.requests) * u64::from(policy.budget_percent) / 100;
        let floor =
            (u64::from(policy.budget_floor_per_second) * SLOTS as u64).div_ceil(workers.max(1) as u64);
        let allowed = sum(&self.retries) < share.max(floor);
        if allowed {
            self.retries[slot] = self.retries[slot].saturating_add(1);
        }
        allowed
    }

    /// The slot of the present second, after emptying those that fell out of the window.
    fn slot(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.began).as_secs();
        let passed = second.saturating_sub(self.second).min(SLOTS as u64);
        for step in 1..=passed {
            let slot = ((self.second + step) % SLOTS as u64) as usize;
            self.requests[slot] = 0;
            self.retries[slot] = 0;
        }
        self.second = self.second.max(second);
        (self.second % SLOTS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_floor_holds_without_requests_and_is_shared_over_workers() {
        let now = Instant::now();
        for (workers, expected) in [(1, 100), (4, 25)] {
            let mut budget = Budget::new(now);
            let allowed =
                (0..1000).filter(|_| budget.allow_retry(&RetryPolicy::default(), workers, now)).count();
            assert_eq!(allowed, expected, "{workers} workers");
        }
    }

    #[test]
    fn retries_stay_a_fifth_of_the_requests_and_the_window_slides() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..10_000 {
            budget.request(start);
        }
        let spend = |budget: &mut Budget, now| {
            (0..10_000).filter(|_| budget.allow_retry(&RetryPolicy::default(), 1, now)).count()
        };
        assert_eq!(spend(&mut budget, start), 2000);
        assert_eq!(spend(&mut budget, start + Duration::from_secs(9)), 0);
        assert_eq!(spend(&mut budget, start + Duration::from_secs(10)), 100, "only the floor is left");
        assert_eq!(spend(&mut budget, start + Duration::from_secs(1000)), 100);
    }
}
