//! What a client may do without cause, and how often.
//!
//! Each of these frames is lawful by itself, costs the client nothing, and costs work or memory here. What they cost is
//! taken from an allowance that comes back with time and with honest work: requests that are answered, and bytes of
//! bodies that are sent. A client that has used one up is told to calm down, and its connection ends.

use std::time::Duration;

use tokio::time::Instant;

/// One kind of thing that must not be done too often.
#[derive(Debug)]
struct Budget {
    left: u32,
    most: u32,
    /// So much comes back with each second.
    each_second: u32,
    /// Since when what has come back was not added.
    since: Instant,
}

/// All that one client may do.
#[derive(Debug)]
pub(crate) struct Allowance {
    cancelled: Budget,
    faults: Budget,
    control: Budget,
    empty: Budget,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        let budget = |most, each_second| Budget { left: most, most, each_second, since: now };
        Self {
            cancelled: budget(500, 50),
            faults: budget(100, 5),
            control: budget(2000, 200),
            empty: budget(100, 1),
        }
    }

    /// A request is cancelled before its answer is whole. It has made work for nobody (CVE-2023-44487).
    pub(crate) fn cancelled(&mut self, now: Instant) -> bool {
        self.cancelled.spend(1, now)
    }

    /// A stream is reset from here, because the client has broken a rule. That is a way to cancel as well
    /// (CVE-2025-8671).
    pub(crate) fn fault(&mut self, now: Instant) -> bool {
        self.faults.spend(1, now)
    }

    /// A frame that is of no stream's body or head, and this dear.
    pub(crate) fn control(&mut self, cost: u32, now: Instant) -> bool {
        self.control.spend(cost, now)
    }

    /// DATA without data that does not end its stream.
    pub(crate) fn empty(&mut self, now: Instant) -> bool {
        self.empty.spend(1, now)
    }

    /// DATA with data has come.
    pub(crate) fn received(&mut self) {
        self.empty.earn(1);
    }

    /// A frame with so many bytes of an answer's body goes out: the client says for each that there is room again, often
    /// twice, and some measure the way with a PING.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.control.earn(4 + (bytes / 512) as u32);
    }

    /// A request has its whole answer.
    pub(crate) fn answered(&mut self) {
        self.cancelled.earn(1);
        self.control.earn(4);
    }
}

impl Budget {
    fn spend(&mut self, cost: u32, now: Instant) -> bool {
        if self.left < cost {
            let passed = now.saturating_duration_since(self.since).min(Duration::from_secs(3600));
            let back = (passed.as_secs_f64() * f64::from(self.each_second)) as u32;
            self.earn(back);
            self.since = now;
        }
        let enough = self.left >= cost;
        self.left = self.left.saturating_sub(cost);
        enough
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_used_comes_back_with_time_and_with_work() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        let all =
            |allowance: &mut Allowance, now| (0..10_000).take_while(|_| allowance.cancelled(now)).count();
        assert_eq!(all(&mut allowance, now), 500);
        now += Duration::from_secs(2);
        assert_eq!(all(&mut allowance, now), 100);
        allowance.answered();
        assert_eq!(all(&mut allowance, now), 1);
        now += Duration::from_secs(1_000_000);
        assert_eq!(all(&mut allowance, now), 500, "never more than at first");
    }
}
