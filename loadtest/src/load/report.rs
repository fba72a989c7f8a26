//! What a run has shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::Pace;

/// What a run has shown. Its `Display` is the table for people, its `Serialize` the JSON for programs (times in
/// milliseconds, as in the names there).
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked.
    pub target: String,
    /// How it was asked.
    pub pace: Pace,
    /// When the run began: the zero of every time in this report.
    #[serde(rename = "began_unix_ms", serialize_with = "unix_milliseconds")]
    pub began: SystemTime,
    /// The same moment, for times taken in this process.
    #[serde(skip)]
    pub start: Instant,
    /// Requests that have ended, one way or the other.
    pub requests: u64,
    /// Those that were answered whole and with an expected status.
    pub answered: u64,
    /// The others.
    pub failed: u64,
    /// From the first due time (or the beginning of the phase) to the end of the last request.
    #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
    /// From the due time to the last byte, of answered requests.
    #[serde(rename = "latency_ms")]
    pub latency: Percentiles,
    /// From when a connection was free to the last byte, of answered requests.
    #[serde(rename = "service_ms")]
    pub service: Percentiles,
    /// How much later than due the generator itself came to each request (open loop).
    #[serde(rename = "send_delay_ms")]
    pub send_delay: Percentiles,
    /// Requests to which the generator itself came too late: if they are many, the run says more about the generator
    /// than about what it measures.
    pub late_sends: u64,
    /// Requests that waited for a free connection, whatever came of them.
    pub queued: u64,
    /// The bound of [`Tally::slow`].
    #[serde(rename = "slow_after_ms", serialize_with = "milliseconds")]
    pub slow_after: Duration,
    /// Requests that took longer than that from their due time, whatever came of them.
    pub slow: u64,
    /// Failures that most clients would not have shown: see [`Failure::retriable`].
    pub retriable: u64,
    /// Requests sent a second time, see [`Load::retry`](super::Load::retry).
    pub retried: u64,
    /// Those with a method that may be repeated: GET, HEAD, PUT, DELETE, OPTIONS, TRACE.
    pub idempotent: Tally,
    /// The others: POST and PATCH.
    pub not_idempotent: Tally,
    /// Requests by method.
    pub methods: BTreeMap<String, Tally>,
    /// Requests of the clients that keep their connections; some of these go first on a connection that had to be opened
    /// again, as [`Failure::new_connection`] tells.
    pub kept_connections: Tally,
    /// Requests of the clients that open a connection for each.
    pub new_connections: Tally,
    /// Connections opened after the start.
    pub connections_opened: u64,
    /// Connections given up because the other side had closed them while they were idle.
    pub connections_replaced: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Answered requests by the upstream that answered.
    pub upstreams: BTreeMap<String, u64>,
    /// Failures by kind.
    pub failed_by_kind: BTreeMap<FailureKind, u64>,
    /// When it was bad: failures less than a second apart are one span. In order of time; of the first million failures.
    pub spans: Vec<Span>,
    /// When requests were slow, answered or not, counted in the same way: a hung endpoint shows here also when the gateway
    /// asks another one in the end.
    pub slow_spans: Vec<Span>,
    /// The failures one by one, the first 10,000.
    pub failures: Vec<Failure>,
}

/// What came of one part of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests that have ended.
    pub requests: u64,
    /// Those that were answered whole and with an expected status.
    pub answered: u64,
    /// The others.
    pub failed: u64,
    /// The failures by kind.
    pub failed_by_kind: BTreeMap<FailureKind, u64>,
    /// Requests that took longer than the bound from their due time, whatever came of them.
    pub slow: u64,
    /// Failures that most clients would not have shown: see [`Failure::retriable`].
    pub retriable: u64,
    /// Requests sent a second time, see [`Load::retry`](super::Load::retry).
    pub retried: u64,
}

/// A time in which requests failed, or were slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// When the first of its requests was due, from the start of the run.
    #[serde(rename = "first_ms", serialize_with = "milliseconds")]
    pub first: Duration,
    /// When the last of them was due.
    #[serde(rename = "last_ms", serialize_with = "milliseconds")]
    pub last: Duration,
    /// When the last of them had ended: later than due by the time-out if nobody answered.
    #[serde(rename = "over_ms", serialize_with = "milliseconds")]
    pub over: Duration,
    /// How many there were.
    pub requests: u64,
}

/// One request that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// When it failed, from the start of the run.
    #[serde(rename = "at_ms", serialize_with = "milliseconds")]
    pub at: Duration,
    /// When it was due, from the start of the run.
    #[serde(rename = "due_ms", serialize_with = "milliseconds")]
    pub due: Duration,
    /// How it failed.
    pub kind: FailureKind,
    /// Its method.
    pub method: String,
    /// Why, in few words.
    pub reason: String,
    /// Whether it was the first request on its connection.
    pub new_connection: bool,
    /// The port on this side of its connection, if there was one: by it the failure is found in a capture or a log.
    pub local_port: Option<u16>,
    /// Its method may be repeated, it went over a kept connection, and that ended before a byte of the answer: curl, Go
    /// and browsers then send such a request once more on a new connection, and their users see nothing.
    pub retriable: bool,
    /// Whether it had been sent a second time.
    pub retried: bool,
    /// Who had begun to answer, if anyone said so.
    pub upstream: Option<String>,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection could be opened for it: nobody listens there.
    ConnectRefused,
    /// No connection was there in time.
    ConnectTimeout,
    /// No connection could be opened for another reason.
    ConnectFailed,
    /// Its connection was closed or reset before the first byte of an answer.
    Reset,
    /// No answer had begun in time.
    Timeout,
    /// Its answer had begun and had not ended in time.
    Stalled,
    /// Its answer had an unexpected status.
    Status,
    /// Its answer was cut after its first byte.
    MidBody,
    /// What came back is not HTTP.
    Protocol,
}

/// A distribution of times; the JSON has milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    #[serde(serialize_with = "milliseconds")]
    pub mean: Duration,
    #[serde(serialize_with = "milliseconds")]
    pub p50: Duration,
    #[serde(serialize_with = "milliseconds")]
    pub p90: Duration,
    #[serde(serialize_with = "milliseconds")]
    pub p99: Duration,
    #[serde(serialize_with = "milliseconds")]
    pub p999: Duration,
    #[serde(serialize_with = "milliseconds")]
    pub max: Duration,
}

impl Report {
    /// Ended requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// From when the first request that failed was due to when the last one was: nothing if none failed or one.
    pub fn bad_for(&self) -> Duration {
        match (self.spans.first(), self.spans.iter().map(|span| span.last).max()) {
            (Some(first), Some(last)) => last.saturating_sub(first.first),
            _ => Duration::ZERO,
        }
    }

    /// Whether the generator itself was late for more than one request in a hundred.
    pub fn fell_behind(&self) -> bool {
        self.late_sends * 100 > self.requests
    }
}

impl Tally {
    pub(super) fn count(&mut self, failure: Option<&Failure>, slow: bool, retried: bool) {
        self.requests += 1;
        self.slow += u64::from(slow);
        self.retried += u64::from(retried);
        match failure {
            None => self.answered += 1,
            Some(failure) => {
                self.failed += 1;
                self.retriable += u64::from(failure.retriable);
                *self.failed_by_kind.entry(failure.kind).or_default() += 1;
            }
        }
    }
}

impl Span {
    /// The spans of requests, each given by its due time and its end.
    pub(super) fn of(mut requests: Vec<(Duration, Duration)>) -> Vec<Span> {
        const APART: Duration = Duration::from_secs(1);
        requests.sort_unstable();
        let mut spans: Vec<Span> = Vec::new();
        for (due, over) in requests {
            match spans.last_mut() {
                Some(span) if due.saturating_sub(span.last) < APART => {
                    span.last = due;
                    span.over = span.over.max(over);
                    span.requests += 1;
                }
                _ => spans.push(Span { first: due, last: due, over, requests: 1 }),
            }
        }
        spans
    }
}

impl Percentiles {
    /// Of a histogram of microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            mean: Duration::from_secs_f64(histogram.mean() / 1e6),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(histogram.max()),
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Status => "status",
            Self::MidBody => "mid_body",
            Self::Protocol => "protocol",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = if self.new_connection { "new" } else { "kept" };
        write!(
            f,
            "at {:.3} s (due {:.3} s) {} {} on a {connection} connection",
            self.at.as_secs_f64(),
            self.due.as_secs_f64(),
            self.kind,
            self.method,
        )?;
        if let Some(port) = self.local_port {
            write!(f, " from port {port}")?;
        }
        write!(f, ": {}", self.reason)?;
        if self.retried {
            f.write_str(", at the second try")?;
        }
        match &self.upstream {
            Some(name) => write!(f, " (from {name})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for time in [self.mean, self.p50, self.p90, self.p99, self.p999, self.max] {
            write!(f, " {:>9.3}", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} requests in {:.1} s ({:.0}/s), {} answered, {} failed",
            self.target,
            self.requests,
            self.elapsed.as_secs_f64(),
            self.rate(),
            self.answered,
            self.failed
        )?;
        writeln!(f, "milliseconds        mean       p50       p90       p99     p99.9       max")?;
        writeln!(f, "latency       {}", self.latency)?;
        writeln!(f, "service       {}", self.service)?;
        if matches!(self.pace, Pace::Open { .. }) {
            writeln!(f, "send delay    {}", self.send_delay)?;
        }
        writeln!(
            f,
            "connections: {} opened after the start, {} replaced; {} requests waited for a free one",
            self.connections_opened, self.connections_replaced, self.queued
        )?;
        self.write_parts(f)?;
        write_counts(f, "status", &self.statuses, self.requests)?;
        write_counts(f, "upstream", &self.upstreams, self.answered)?;
        write_counts(f, "failed", &self.failed_by_kind, self.requests)?;
        for span in &self.spans {
            writeln!(f, "bad       {span}")?;
        }
        for span in &self.slow_spans {
            writeln!(f, "slow      {span}")?;
        }
        for failure in self.failures.iter().take(20) {
            writeln!(f, "  {failure}")?;
        }
        if self.failed > 20 {
            writeln!(f, "  … and {} more", self.failed - 20)?;
        }
        if self.fell_behind() {
            writeln!(f, "THE GENERATOR FELL BEHIND: it was late itself for {} requests", self.late_sends)?;
        } else if self.late_sends > 0 {
            writeln!(f, "the generator was late itself for {} requests", self.late_sends)?;
        }
        Ok(())
    }
}

impl Report {
    fn write_parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_method = self.methods.iter().map(|(name, tally)| (name.as_str(), tally));
        let parts = [
            ("idempotent", &self.idempotent),
            ("not idempotent", &self.not_idempotent),
            ("keep connections", &self.kept_connections),
            ("new connections", &self.new_connections),
        ];
        for (name, tally) in parts.into_iter().chain(by_method).filter(|(_, tally)| tally.requests > 0) {
            writeln!(f, "{name:<20} {tally}")?;
        }
        let bound = humantime::format_duration(self.slow_after);
        writeln!(f, "waited over {bound}: {}", self.slow)?;
        if self.retriable > 0 {
            let (retriable, failed) = (self.retriable, self.failed);
            writeln!(
                f,
                "{retriable} of the {failed} failures hit a kept connection that most clients replace"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10} requests, {} failed", self.requests, self.failed)?;
        for (kind, count) in &self.failed_by_kind {
            write!(f, ", {kind} {count}")?;
        }
        if self.retried > 0 {
            write!(f, ", {} sent twice", self.retried)?;
        }
        Ok(())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last, over] = [self.first, self.last, self.over].map(|time| time.as_secs_f64());
        let (requests, long) = (self.requests, last - first);
        write!(
            f,
            "for {long:.3} s: {requests} requests, due from {first:.3} s to {last:.3} s, over at {over:.3} s"
        )
    }
}

fn write_counts<K: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    counts: &BTreeMap<K, u64>,
    total: u64,
) -> fmt::Result {
    for (key, count) in counts {
        let share = *count as f64 * 100.0 / total.max(1) as f64;
        writeln!(f, "{title:<9} {:<24} {count:>10}  {share:>6.2} %", key.to_string())?;
    }
    Ok(())
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

fn unix_milliseconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_f64(since.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_near_each_other_are_one_span() {
        let at = Duration::from_millis;
        // In the order of their ends, as they are recorded: the first ended last.
        let spans =
            Span::of(vec![(at(110), at(111)), (at(900), at(901)), (at(2000), at(2001)), (at(100), at(5100))]);
        assert_eq!(
            spans,
            [
                Span { first: at(100), last: at(900), over: at(5100), requests: 3 },
                Span { first: at(2000), last: at(2000), over: at(2001), requests: 1 },
            ]
        );
        assert_eq!(Span::of(Vec::new()), []);
    }
}
