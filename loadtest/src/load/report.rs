//! What a run has shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::Pace;

/// What a run has shown. Its `Display` is the table for people, its `Serialize` the JSON for programs (times in
/// milliseconds, as in the names there).
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked.
    pub target: String,
    /// How it was asked.
    pub pace: Pace,
    /// Requests that have ended, one way or the other.
    pub requests: u64,
    /// Those that were answered whole and with an expected status.
    pub answered: u64,
    /// The others.
    pub failed: u64,
    /// From the first due time to the end of the last request.
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
    /// Requests that waited for a free connection.
    pub queued: u64,
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
    /// The failures one by one, the first 10,000.
    pub failures: Vec<Failure>,
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
    /// Who had begun to answer, if anyone said so.
    pub upstream: Option<String>,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection could be opened for it.
    Connect,
    /// It was sent, and the connection ended before the head of an answer (or a new connection before it was sent).
    Reset,
    /// It had not ended in time.
    Timeout,
    /// Its answer had an unexpected status.
    Status,
    /// Its answer's body was cut.
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

    /// Whether the generator itself was late for more than one request in a hundred.
    pub fn fell_behind(&self) -> bool {
        self.late_sends * 100 > self.requests
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
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
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
            "at {:.3} s (due {:.3} s) {} {} on a {connection} connection: {}",
            self.at.as_secs_f64(),
            self.due.as_secs_f64(),
            self.kind,
            self.method,
            self.reason,
        )?;
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
        write_counts(f, "status", &self.statuses, self.requests)?;
        write_counts(f, "upstream", &self.upstreams, self.answered)?;
        write_counts(f, "failed", &self.failed_by_kind, self.requests)?;
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
