//! Counting while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::report::{Failure, Percentiles, Report};
use super::{FailureKind, Load};

/// Failures that are kept whole; the counts go on beyond it.
const KEPT_FAILURES: usize = 10_000;
/// Names of upstreams that are counted apart.
const KEPT_NAMES: usize = 10_000;

/// What has been seen so far.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    last: Instant,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    send_delay: Histogram<u64>,
    handed_out: u64,
    late_sends: u64,
    queued: u64,
    answered: u64,
    failed: u64,
    opened: u64,
    replaced: u64,
    statuses: BTreeMap<u16, u64>,
    upstreams: BTreeMap<String, u64>,
    failed_by_kind: BTreeMap<FailureKind, u64>,
    failures: Vec<Failure>,
}

/// How one request ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From its due time.
    pub(super) latency: Duration,
    /// From when a connection was free for it.
    pub(super) service: Duration,
    /// Whether it waited for a free connection.
    pub(super) queued: bool,
    pub(super) status: Option<u16>,
    pub(super) upstream: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) ended: Instant,
}

impl Recorder {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            last: start,
            latency: histogram(),
            service: histogram(),
            send_delay: histogram(),
            handed_out: 0,
            late_sends: 0,
            queued: 0,
            answered: 0,
            failed: 0,
            opened: 0,
            replaced: 0,
            statuses: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            failed_by_kind: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// A ticket reached the sender this long after it was due.
    pub(super) fn handed_out(&mut self, delay: Duration, late_after: Duration) {
        self.handed_out += 1;
        self.late_sends += u64::from(delay > late_after);
        self.send_delay.saturating_record(micros(delay));
    }

    /// A connection was opened while requests ran.
    pub(super) fn opened(&mut self) {
        self.opened += 1;
    }

    /// A connection that the other side had closed was given up.
    pub(super) fn replaced(&mut self) {
        self.replaced += 1;
    }

    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.last = self.last.max(outcome.ended);
        if let Some(status) = outcome.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        match outcome.failure {
            None => {
                self.answered += 1;
                self.latency.saturating_record(micros(outcome.latency));
                self.service.saturating_record(micros(outcome.service));
                self.queued += u64::from(outcome.queued);
                self.count_upstream(outcome.upstream);
            }
            Some(failure) => {
                self.failed += 1;
                *self.failed_by_kind.entry(failure.kind).or_default() += 1;
                if self.failures.len() < KEPT_FAILURES {
                    self.failures.push(failure);
                }
            }
        }
    }

    fn count_upstream(&mut self, name: Option<String>) {
        let Some(name) = name else { return };
        if let Some(count) = self.upstreams.get_mut(&name) {
            *count += 1;
        } else {
            let name = if self.upstreams.len() < KEPT_NAMES { name } else { "(others)".to_owned() };
            *self.upstreams.entry(name).or_default() += 1;
        }
    }

    pub(super) fn report(&self, load: &Load) -> Report {
        let elapsed = self.last.saturating_duration_since(self.start);
        Report {
            target: format!("http://{}{}", load.address, load.target),
            pace: load.pace,
            requests: self.answered + self.failed,
            answered: self.answered,
            failed: self.failed,
            elapsed,
            latency: Percentiles::of(&self.latency),
            service: Percentiles::of(&self.service),
            send_delay: Percentiles::of(&self.send_delay),
            late_sends: self.late_sends,
            queued: self.queued,
            connections_opened: self.opened,
            connections_replaced: self.replaced,
            statuses: self.statuses.clone(),
            upstreams: self.upstreams.clone(),
            failed_by_kind: self.failed_by_kind.clone(),
            failures: self.failures.clone(),
        }
    }
}

fn histogram() -> Histogram<u64> {
    // One microsecond to ten minutes, to three digits.
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
