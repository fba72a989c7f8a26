//! What a measurement has shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::book::{Book, Window, histogram};
use super::{Plan, Protocol};
use crate::load::FailureKind;

/// What a measurement has shown. Its `Display` is the table for people, its `Serialize` the JSON for programs.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// What was asked.
    pub target: String,
    /// `http/1.1` or `h2`.
    pub protocol: String,
    /// Connections.
    pub connections: usize,
    /// Requests at a time on each.
    pub streams: usize,
    /// Requests a second that were to be sent; none in the closed loop.
    pub rate: Option<f64>,
    /// Requests that have ended, one way or the other.
    pub requests: u64,
    /// Those that were answered whole and with an expected status.
    pub answered: u64,
    /// The others.
    pub failed: u64,
    /// Failures by kind.
    pub failed_by_kind: BTreeMap<FailureKind, u64>,
    /// The same with their reasons, the most frequent first.
    pub troubles: Vec<Trouble>,
    /// Answers by status, of those that were expected.
    pub statuses: BTreeMap<u16, u64>,
    /// Answered after the end of the closed loop's time: in no other count, but work that the target has done.
    pub answered_after_end: u64,
    /// How long it was measured.
    pub seconds: f64,
    /// Answered requests in each of them.
    pub requests_per_second: f64,
    /// Of answered requests: in the open loop from when they were due, else from when they were sent.
    pub latency_us: Latency,
    /// Which share of the requests took no longer than what.
    pub quantiles: Vec<Quantile>,
    /// Requests that waited for a free connection more than a millisecond (open loop).
    pub queued: u64,
    /// Connections opened after the start.
    pub connections_opened: u64,
    /// Connections that the other side had closed while nothing was asked on them.
    pub connections_replaced: u64,
    /// How it went over time.
    pub moments: Vec<Moment>,
}

/// One way in which requests failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// The kind of failure.
    pub kind: FailureKind,
    /// In words.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A distribution of times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99_9")]
    pub p999: u64,
    pub max: u64,
}

/// A point of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantile {
    /// This share of the requests, 0 to 1,
    pub share: f64,
    /// took no longer than these microseconds.
    pub micros: u64,
}

/// A step of the time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moment {
    /// Its begin, from that of the measurement.
    pub at_seconds: f64,
    /// How long it is.
    pub seconds: f64,
    /// Requests that were answered in it.
    pub answered: u64,
    /// Requests that failed in it.
    pub failed: u64,
    /// Of those that were answered in it.
    pub latency_us: Latency,
}

impl Measured {
    pub(super) fn new(plan: &Plan, window: Window, book: &Book) -> Self {
        let mut all = histogram();
        for interval in &book.intervals {
            all.add(&interval.latency).expect("all histograms have the same bounds");
        }
        let (answered, failed) = book.totals();
        let seconds = book.seconds(window).as_secs_f64();
        let mut failed_by_kind = BTreeMap::new();
        let mut troubles = Vec::new();
        for ((kind, reason), &count) in &book.failures {
            *failed_by_kind.entry(*kind).or_default() += count;
            troubles.push(Trouble { kind: *kind, reason: reason.clone(), count });
        }
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.count));
        let (protocol, streams) = match plan.protocol {
            Protocol::Http1 => ("http/1.1", 1),
            Protocol::Http2 { streams } => ("h2", streams),
        };
        Self {
            target: plan.shown.clone(),
            protocol: protocol.to_owned(),
            connections: plan.connections,
            streams,
            rate: plan.rate,
            requests: answered + failed,
            answered,
            failed,
            failed_by_kind,
            troubles,
            statuses: book.statuses.clone(),
            answered_after_end: book.after_end,
            seconds,
            requests_per_second: answered as f64 / seconds.max(f64::EPSILON),
            latency_us: Latency::of(&all),
            quantiles: quantiles(&all),
            queued: book.queued,
            connections_opened: book.opened,
            connections_replaced: book.replaced,
            moments: book.moments(window),
        }
    }
}

impl Book {
    /// How long was measured: the closed loop ends with its time; the open loop's last requests may take longer.
    fn seconds(&self, window: Window) -> Duration {
        let last = self.last.saturating_duration_since(window.start);
        match window.end {
            Some(end) if !window.by_due => last.min(end - window.start),
            _ => last,
        }
    }

    fn moments(&self, window: Window) -> Vec<Moment> {
        let moment = |(number, interval): (usize, &super::book::Interval)| Moment {
            at_seconds: number as f64 * window.every.as_secs_f64(),
            seconds: window.every.as_secs_f64(),
            answered: interval.latency.len(),
            failed: interval.failed,
            latency_us: Latency::of(&interval.latency),
        };
        self.intervals.iter().enumerate().map(moment).collect()
    }
}

impl Latency {
    fn of(histogram: &Histogram<u32>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// The distribution at the points at which it is drawn.
fn quantiles(histogram: &Histogram<u32>) -> Vec<Quantile> {
    let shares = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];
    let at = |share| Quantile { share, micros: histogram.value_at_quantile(share) };
    if histogram.is_empty() { Vec::new() } else { shares.map(at).into() }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { mean, p50, p90, p99, p999, max } = self.latency_us;
        writeln!(f, "{}  {}, {}", self.target, self.protocol, self.manner())?;
        writeln!(f)?;
        writeln!(f, "requests      {:>12}   in {:.2} s", self.requests, self.seconds)?;
        writeln!(f, "answered      {:>12}   {:.0} a second", self.answered, self.requests_per_second)?;
        writeln!(f, "failed        {:>12}", self.failed)?;
        for Trouble { kind, reason, count } in &self.troubles {
            writeln!(f, "  {count:>10}  {kind}: {reason}")?;
        }
        writeln!(f)?;
        writeln!(f, "milliseconds       mean       p50       p90       p99     p99.9       max")?;
        write!(f, "latency      ")?;
        for micros in [mean, p50 as f64, p90 as f64, p99 as f64, p999 as f64, max as f64] {
            write!(f, " {:>9.3}", micros / 1e3)?;
        }
        writeln!(f)?;
        for (status, count) in &self.statuses {
            writeln!(f, "status {status}    {count:>12}")?;
        }
        if self.queued > 0 {
            writeln!(f, "{} requests were sent more than a millisecond after they were due", self.queued)?;
        }
        writeln!(
            f,
            "connections: {} opened after the start, {} replaced",
            self.connections_opened, self.connections_replaced
        )
    }
}

impl Measured {
    fn manner(&self) -> String {
        let connections = match self.streams {
            1 => format!("{} connections", self.connections),
            streams => format!("{} connections × {streams} streams", self.connections),
        };
        match self.rate {
            Some(rate) => format!("{connections}, open loop at {rate:.0} a second"),
            None => format!("{connections}, closed loop"),
        }
    }
}
