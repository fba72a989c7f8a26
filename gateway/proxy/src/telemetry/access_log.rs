//! One line of JSON for each request, written by a thread of its own.
//!
//! A slow reader of standard output must not slow a request down: a worker hands the entry over without waiting, and
//! what finds the queue full is dropped and counted. The line is also formatted on the writer's thread.
//!
//! Never written, because they are secrets or may carry some: header values other than `Host`, `User-Agent` and the
//! request id, and the query.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};
use jiff::Timestamp;
use portolan_model::{ClusterId, RouteId};
use serde::{Serialize, Serializer};

use crate::error::Reason;
use crate::http::request_id::RequestId;

/// Where the access log goes.
pub enum AccessLogOutput {
    /// Standard output.
    Stdout,
    /// Anything else that bytes can be written to.
    Writer(Box<dyn Write + Send + Sync>),
}

/// A worker's end of the access log.
#[derive(Clone)]
pub(crate) struct AccessLogger {
    queue: SyncSender<Box<Entry>>,
    dropped: Arc<AtomicU64>,
}

/// What is known of a finished request.
pub(crate) struct Entry {
    pub(crate) ended: Timestamp,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) route: Option<RouteId>,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) attempts: u32,
    pub(crate) duration: Duration,
    pub(crate) upstream: Option<Duration>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) generation: u64,
    pub(crate) user_agent: Option<HeaderValue>,
}

// === impl AccessLogger ===

impl AccessLogger {
    /// Starts the writer's thread, which ends when the last logger is dropped and all is written.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(output: AccessLogOutput, backlog: usize) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, entries) = sync_channel(backlog);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || {
            let output: Box<dyn Write> = match output {
                AccessLogOutput::Stdout => Box::new(io::stdout()),
                AccessLogOutput::Writer(writer) => writer,
            };
            write_all(&entries, output, &lost);
        })?;
        Ok((Self { queue, dropped }, writer))
    }

    /// Hands an entry to the writer, or counts it as dropped if the writer is behind.
    pub(crate) fn write(&self, entry: Entry) {
        if self.queue.try_send(Box::new(entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries that were dropped so far.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

/// Writes until the queue is closed; flushes whenever it has caught up.
fn write_all(entries: &Receiver<Box<Entry>>, output: Box<dyn Write>, dropped: &AtomicU64) {
    let mut output = io::BufWriter::with_capacity(64 * 1024, output);
    while let Ok(mut entry) = entries.recv() {
        loop {
            if write_line(&mut output, &entry).is_err() {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            entry = match entries.try_recv() {
                Ok(next) => next,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            };
        }
        // A closed pipe loses lines, not requests.
        if output.flush().is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_line(output: &mut impl Write, entry: &Entry) -> io::Result<()> {
    serde_json::to_writer(&mut *output, &Line::from(entry))?;
    output.write_all(b"\n")
}

/// The line as it is written; the names are a stable interface (`docs/telemetry.md`).
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "in_milliseconds")]
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    client: IpAddr,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    protocol: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    attempts: u32,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    bytes_in: u64,
    bytes_out: u64,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

impl<'a> From<&'a Entry> for Line<'a> {
    fn from(entry: &'a Entry) -> Self {
        let text = |value: &'a Option<HeaderValue>| value.as_ref().and_then(|value| value.to_str().ok());
        Self {
            time: entry.ended,
            request_id: entry.request_id.as_ref().map(RequestId::as_text),
            client: entry.client,
            method: entry.method.as_str(),
            host: text(&entry.host),
            path: entry.path.as_ref().map(PathAndQuery::path),
            protocol: protocol(entry.version),
            status: entry.status,
            reason: entry.reason.map(Reason::as_str),
            route: entry.route.as_ref().map(RouteId::as_str),
            cluster: entry.cluster.as_ref().map(ClusterId::as_str),
            endpoint: entry.endpoint,
            attempts: entry.attempts,
            duration_ms: milliseconds(entry.duration),
            upstream_ms: entry.upstream.map(milliseconds),
            bytes_in: entry.bytes_in,
            bytes_out: entry.bytes_out,
            generation: entry.generation,
            user_agent: text(&entry.user_agent),
        }
    }
}

fn in_milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Milliseconds with three digits behind the point, which is what the clock is good for.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl std::fmt::Debug for AccessLogOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stdout => "Stdout",
            Self::Writer(_) => "Writer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            ended: Timestamp::UNIX_EPOCH,
            request_id: Some(RequestId::Given(HeaderValue::from_static("r1"))),
            client: [10, 0, 0, 1].into(),
            method: Method::GET,
            host: Some(HeaderValue::from_static("shop.test")),
            path: Some(PathAndQuery::from_static("/orders/7?token=secret")),
            version: Version::HTTP_11,
            status: 502,
            reason: Some(Reason::UpstreamReset),
            route: None,
            cluster: None,
            endpoint: None,
            attempts: 2,
            duration: Duration::from_micros(1234),
            upstream: None,
            bytes_in: 0,
            bytes_out: 88,
            generation: 3,
            user_agent: None,
        }
    }

    #[test]
    fn a_line_is_json_with_a_path_and_without_a_query() {
        let mut line = Vec::new();
        write_line(&mut line, &entry()).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"request_id\":\"r1\",\"client\":\"10.0.0.1\",\"method\":\"GET\",\
             \"host\":\"shop.test\",\"path\":\"/orders/7\",\"protocol\":\"HTTP/1.1\",\"status\":502,\
             \"reason\":\"upstream_reset\",\"attempts\":2,\"duration_ms\":1.234,\"bytes_in\":0,\"bytes_out\":88,\
             \"generation\":3}\n"
        );
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_and_not_time() {
        struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().recv().ok();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_release, stuck) = std::sync::mpsc::channel();
        let (logger, _writer) =
            AccessLogger::start(AccessLogOutput::Writer(Box::new(Stuck(stuck.into()))), 4).unwrap();
        for _ in 0..4000 {
            logger.write(entry());
        }
        assert!(logger.dropped().load(Ordering::Relaxed) > 0);
    }
}
