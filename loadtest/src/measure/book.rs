//! Counting while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::fault::Fault;
use crate::load::FailureKind;

/// Reasons of failures that are counted apart.
const MOST_REASONS: usize = 100;

/// When what is measured begins and ends, and how finely it is kept over time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    /// None: until the count is reached or it is stopped.
    pub(super) end: Option<Instant>,
    pub(super) every: Duration,
    /// Whether a request counts by when it was due (open loop) and not by when it ended.
    pub(super) by_due: bool,
}

/// What one thread has seen.
#[derive(Debug)]
pub(super) struct Book {
    window: Window,
    pub(super) intervals: Vec<Interval>,
    pub(super) failures: BTreeMap<(FailureKind, String), u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Status of the last answers, which mostly is also that of the next: counted without a look into the map.
    usual: (u16, u64),
    pub(super) queued: u64,
    pub(super) opened: u64,
    pub(super) replaced: u64,
    pub(super) after_end: u64,
    pub(super) last: Instant,
}

/// What was seen in one step of the time.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    /// Microseconds of answered requests.
    pub(super) latency: Histogram<u32>,
    pub(super) failed: u64,
}

impl Book {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            intervals: Vec::new(),
            failures: BTreeMap::new(),
            statuses: BTreeMap::new(),
            usual: (0, 0),
            queued: 0,
            opened: 0,
            replaced: 0,
            after_end: 0,
            last: window.start,
        }
    }

    /// Whether a request due now is to be counted.
    pub(super) fn is_open(&self, due: Instant) -> bool {
        due >= self.window.start
    }

    /// A request due then ended now.
    pub(super) fn ended(&mut self, due: Instant, ended: Instant, result: &Result<u16, Fault>) {
        let at = if self.window.by_due { due } else { ended };
        if at < self.window.start {
            return;
        }
        // What ended after the closed loop's time says nothing about its rate; but a failure is a failure.
        if result.is_ok() && !self.window.by_due && self.window.end.is_some_and(|end| ended > end) {
            self.after_end += 1;
            return;
        }
        self.last = self.last.max(ended);
        let interval = self.interval(ended);
        match result {
            Ok(status) => {
                let latency = ended.saturating_duration_since(due).as_micros();
                interval.latency.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
                self.count_status(*status);
            }
            Err(fault) => {
                interval.failed += 1;
                let mut key = (fault.kind, fault.reason.to_string());
                if self.failures.len() >= MOST_REASONS && !self.failures.contains_key(&key) {
                    key.1 = "(others)".to_owned();
                }
                *self.failures.entry(key).or_default() += 1;
            }
        }
    }

    /// The counts of one status are in the map only after this.
    pub(super) fn close(&mut self) {
        let (status, count) = std::mem::take(&mut self.usual);
        if count > 0 {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        self.intervals.iter().fold((0, 0), |(answered, failed), interval| {
            (answered + interval.latency.len(), failed + interval.failed)
        })
    }

    /// Takes in what another thread has seen.
    pub(super) fn add(&mut self, other: Self) {
        for (number, interval) in other.intervals.into_iter().enumerate() {
            match self.intervals.get_mut(number) {
                Some(own) => {
                    own.latency.add(&interval.latency).expect("all histograms have the same bounds");
                    own.failed += interval.failed;
                }
                None => self.intervals.push(interval),
            }
        }
        for (key, count) in other.failures {
            *self.failures.entry(key).or_default() += count;
        }
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.queued += other.queued;
        self.opened += other.opened;
        self.replaced += other.replaced;
        self.after_end += other.after_end;
        self.last = self.last.max(other.last);
    }

    fn count_status(&mut self, status: u16) {
        if self.usual.0 != status {
            self.close();
            self.usual.0 = status;
        }
        self.usual.1 += 1;
    }

    fn interval(&mut self, at: Instant) -> &mut Interval {
        let number =
            at.saturating_duration_since(self.window.start).as_nanos() / self.window.every.as_nanos();
        let number = usize::try_from(number).unwrap_or(usize::MAX).min(MOST_INTERVALS - 1);
        while self.intervals.len() <= number {
            self.intervals.push(Interval { latency: histogram(), failed: 0 });
        }
        &mut self.intervals[number]
    }
}

/// The intervals of a run are chosen so that there are about this many; a run without an end gets no more either.
pub(super) const MOST_INTERVALS: usize = 600;

/// Of microseconds: to ten minutes, to three digits.
pub(super) fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid")
}
