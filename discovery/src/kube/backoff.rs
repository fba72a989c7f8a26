//! How long to wait before the API server is asked again.
//!
//! Three speeds. What passes by itself within seconds (connection refused, a restart, 5xx, an answer that makes no
//! sense) is tried again after at most 2 s, because every second of it is a second in which pods move unseen. So is
//! 401: the kubelet writes a new token without anybody's help, and nobody tells when. What needs a person (403, 404) is
//! tried after up to 10 s: whoever grants the right waits for it to count. What needs relief (429) is tried after up to
//! 30 s. Each sort counts its own failures: an API server that comes back denies everything for a moment, until it has
//! read its rules, and then finds every version too old (410). The first of each after an outage must be a short wait.
//! Full jitter in all: the replicas of a gateway lose an API server in the same instant and must not come back in the
//! same instant.

use std::time::Duration;

use super::request::Failure;

/// The waits, as settings: tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct BackoffTimings {
    /// The upper bound of the first wait; it doubles with each failure in a row.
    pub first: Duration,
    /// The longest wait for what passes by itself.
    pub passing: Duration,
    /// The longest wait for a refusal.
    pub refused: Duration,
    /// The longest wait when the server wants to be asked less.
    pub throttled: Duration,
}

impl Default for BackoffTimings {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            passing: Duration::from_secs(2),
            refused: Duration::from_secs(10),
            throttled: Duration::from_secs(30),
        }
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    timings: BackoffTimings,
    passing: u32,
    refused: u32,
    throttled: u32,
    expired: u32,
}

impl Backoff {
    pub(crate) fn new(timings: BackoffTimings) -> Self {
        Self { timings, passing: 0, refused: 0, throttled: 0, expired: 0 }
    }

    /// Something came that proves the API server is well.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.timings);
    }

    /// The wait after one more failure.
    pub(crate) fn next(&mut self, failure: &Failure) -> Duration {
        let (cap, failures) = match failure {
            _ if failure.is_throttling() => (self.timings.throttled, &mut self.throttled),
            _ if failure.is_refusal() => (self.timings.refused, &mut self.refused),
            _ if failure.is_gone() => (self.timings.passing, &mut self.expired),
            _ => (self.timings.passing, &mut self.passing),
        };
        let grown = self.timings.first.saturating_mul(1 << (*failures).min(20));
        *failures = failures.saturating_add(1);
        // The floor keeps a run of small random numbers from becoming a hot loop.
        let floor = self.timings.first.min(cap) / 4;
        let jittered = random_between(floor, grown.min(cap));
        match failure.retry_after() {
            // Not before the server wants it, and spread behind that, so that not everyone returns in the same second.
            Some(wanted) if failure.is_throttling() => {
                wanted.min(cap) + random_between(Duration::ZERO, floor * 4)
            }
            Some(_) | None => jittered,
        }
    }
}

/// A random length of time between the two.
pub(crate) fn random_between(low: Duration, high: Duration) -> Duration {
    low + high.saturating_sub(low).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, retry_after: Option<u64>) -> Failure {
        Failure::Answered { code, message: "m".into(), retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn each_sort_has_a_longest_wait_of_its_own() {
        for (failure, cap) in [
            (Failure::Unreachable("refused".into()), 2),
            (Failure::Garbled("html".into()), 2),
            (answered(500, None), 2),
            (answered(503, Some(20)), 2),
            (answered(401, None), 2),
            (answered(403, None), 10),
            (answered(404, None), 10),
            (answered(429, None), 30),
        ] {
            let mut backoff = Backoff::new(BackoffTimings::default());
            let waits: Vec<_> = (0..200).map(|_| backoff.next(&failure)).collect();
            assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(cap)), "{failure}");
            assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(50)), "{failure}");
            assert!(
                waits.iter().any(|wait| *wait > Duration::from_secs(cap) / 2),
                "{failure}: the wait grows"
            );
            assert!(waits[0] <= Duration::from_millis(200), "{failure}: the first wait is short");
        }
    }

    #[test]
    fn success_starts_anew() {
        let mut backoff = Backoff::new(BackoffTimings::default());
        let failure = answered(403, None);
        for _ in 0..20 {
            backoff.next(&failure);
        }
        backoff.reset();
        assert!(backoff.next(&failure) <= Duration::from_millis(200));
    }

    #[test]
    fn the_first_refusal_and_the_first_410_after_an_outage_are_short_waits() {
        let mut backoff = Backoff::new(BackoffTimings::default());
        for _ in 0..100 {
            backoff.next(&Failure::Unreachable("refused".into()));
        }
        assert!(backoff.next(&answered(403, None)) <= Duration::from_millis(200));
        assert!(backoff.next(&answered(403, None)) <= Duration::from_millis(400));
        assert!(backoff.next(&answered(410, None)) <= Duration::from_millis(200));
    }

    #[test]
    fn the_server_says_when_but_not_for_longer_than_the_cap() {
        let mut backoff = Backoff::new(BackoffTimings::default());
        for _ in 0..50 {
            let wait = backoff.next(&answered(429, Some(7)));
            assert!(wait >= Duration::from_secs(7) && wait <= Duration::from_millis(7200), "{wait:?}");
        }
        assert!(backoff.next(&answered(429, Some(86_400))) <= Duration::from_millis(30_200));
    }
}
