//! The generator.
//!
//! **What it promises.** In the open loop request number *i* is due at `start + i / rate`, and its latency runs from
//! then to the last byte of the answer, whatever held it up: the gateway, a lack of free connections, or the generator
//! itself. What the generator itself was late for is counted apart ([`Report::late_sends`]), so a measurement that says
//! more about the generator than about the gateway can be told from a good one.
//!
//! **What is a failure** is in [`FailureKind`]. A connection that the other side closed while nothing was asked of it is
//! none: it is replaced, and counted as such. A request of which a byte was written and that got no answer is one. Many
//! clients would send it once more if its connection was a kept one; what they would not have shown is counted apart
//! ([`Report::retriable`]), and [`Load::retry`] does as they do.
//!
//! **How it works.** A thread of its own wakes at each due time (finer than a runtime's timers, which count in whole
//! milliseconds) and hands tickets to a single-threaded runtime. There, one task per kept connection takes the next
//! ticket; tickets of the share on new connections get a task and a connection each. One thread sends some 40,000
//! requests a second; a higher rate shows in the count of late sends.

mod connection;
mod engine;
mod exchange;
mod pace;
mod record;
mod report;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde::Serialize;
use tokio::time::Instant;

use self::record::Recorder;
pub use self::report::{Failure, FailureKind, Percentiles, Report, Span, Tally};

/// What to send, where, how fast and how long. Made by [`Load::to`] or [`Load::to_url`]; every field may be changed.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to connect.
    pub address: SocketAddr,
    /// The request target: a path with its query, or an absolute URL to be sent as it is (what a client with
    /// `http_proxy` set sends; see [`Load::through_proxy`]).
    pub target: Uri,
    /// The `Host` field.
    pub host: HeaderValue,
    /// Fields on every request.
    pub headers: HeaderMap,
    /// The mix of requests; each is drawn by its share.
    pub mix: Vec<Shot>,
    /// When requests are sent.
    pub pace: Pace,
    /// How many connections are kept and used again. When all are busy the next request waits ([`Report::queued`]), as in a
    /// client with a bounded pool: while some answers take seconds, as many times the rate are needed.
    pub connections: usize,
    /// The share of requests, 0 to 1, that go on a new connection each, beside the kept ones.
    pub new_connections: f64,
    /// How long a request may take from its due time to its last byte.
    pub timeout: Duration,
    /// How long requests are sent; none means until [`Running::stop`] or the count.
    pub duration: Option<Duration>,
    /// How many requests are sent; none means until [`Running::stop`] or the duration.
    pub count: Option<u64>,
    /// The statuses that are no failure.
    pub expected: RangeInclusive<u16>,
    /// Where the name of the upstream that answered stands.
    pub upstream_name: UpstreamName,
    /// A request that takes longer than this from its due time is counted as slow, whatever comes of it.
    pub slow_after: Duration,
    /// Sends a request with an idempotent method once more, on a new connection, when its kept connection ended before a
    /// byte of the answer: as curl, Go and browsers do. Off, such a request has failed.
    pub retry: bool,
    /// A send that the generator itself makes later than this counts as late.
    pub late_after: Duration,
    /// Makes the draws (mix, share of new connections) the same in every run.
    pub seed: u64,
    /// Told of each request as it ends.
    pub observer: Option<Observer>,
}

/// One kind of request in the mix.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The method.
    pub method: Method,
    /// The body; empty sends none.
    pub body: Bytes,
    /// Its share, relative to the others.
    pub weight: f64,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// At this many a second, evenly spaced, whatever the answers do.
    Open {
        /// Requests a second.
        rate: f64,
    },
    /// On each kept connection the next as soon as the one before has ended.
    Closed,
}

/// Where the name of the upstream that answered stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamName {
    /// In this header field of the answer.
    Header(http::HeaderName),
    /// The answer's body is the name (its first 128 bytes count).
    Body,
}

/// What an [`Observer`] is told of one request.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// When it was due.
    pub due: Instant,
    /// When its last byte, or its failure, came.
    pub ended: Instant,
    /// Whether it was answered as expected.
    pub answered: bool,
    /// How it failed, if it did.
    pub failure: Option<FailureKind>,
    /// The status of its answer, if there was one.
    pub status: Option<u16>,
    /// Its method.
    pub method: &'a Method,
    /// Whether it was the first request on its connection.
    pub new_connection: bool,
    /// Who answered, if that is known.
    pub upstream: Option<&'a str>,
}

/// A function that is told of each request as it ends, on the generator's thread: it must be quick.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Seen<'_>) + Send + Sync>);

/// A generator at work. Dropping it stops the sending; what it has measured is lost then.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    load: Load,
    recorder: Recorder,
    thread: Option<JoinHandle<anyhow::Result<Report>>>,
}

impl Load {
    /// GETs of `target` at `address`, 100 a second on 8 kept connections, until it is stopped. The `Host` is the
    /// address.
    ///
    /// # Panics
    /// If `target` is not a request target.
    pub fn to(address: SocketAddr, target: &str) -> Self {
        Self {
            address,
            target: target.parse().expect("the caller passes a valid request target"),
            host: HeaderValue::try_from(address.to_string())
                .expect("a socket address is a valid field value"),
            headers: HeaderMap::new(),
            mix: vec![Shot { method: Method::GET, body: Bytes::new(), weight: 1.0 }],
            pace: Pace::Open { rate: 100.0 },
            connections: 8,
            new_connections: 0.0,
            timeout: Duration::from_secs(5),
            duration: None,
            count: None,
            expected: 200..=399,
            upstream_name: UpstreamName::Header(http::HeaderName::from_static("x-upstream")),
            slow_after: Duration::from_secs(1),
            retry: false,
            late_after: Duration::from_millis(1),
            seed: 1,
            observer: None,
        }
    }

    /// The same for an `http://` URL; its host name is looked up now, once.
    ///
    /// # Errors
    /// If the URL is not an absolute `http://` one, or its host has no address.
    pub fn to_url(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{url:?}: only http:// URLs can be asked");
        }
        let authority = uri.authority().with_context(|| format!("{url:?} names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = (name, port)
            .to_socket_addrs()
            .with_context(|| format!("looking up {name:?}"))?
            .next()
            .with_context(|| format!("{name:?} has no address"))?;
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = HeaderValue::try_from(authority.as_str())?;
        Ok(Self { host, ..Self::to(address, target) })
    }

    /// Asks the proxy at the `http://` URL `proxy` for `url`, as a client with the variable `http_proxy` does: the URL is
    /// the request target, and its host name is not looked up here.
    ///
    /// # Errors
    /// If one of them is not an absolute `http://` URL, or the proxy's host has no address.
    pub fn through_proxy(proxy: &str, url: &str) -> anyhow::Result<Self> {
        let target: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        if target.scheme_str() != Some("http") {
            bail!("{url:?}: only http:// URLs can be asked");
        }
        let authority = target.authority().with_context(|| format!("{url:?} names no host"))?;
        let host = HeaderValue::try_from(authority.as_str())?;
        Ok(Self { target, host, ..Self::to_url(proxy)? })
    }

    /// Sends these methods, each by its share relative to the others; POST, PUT and PATCH carry `body`.
    #[must_use]
    pub fn with_mix(mut self, mix: &[(Method, f64)], body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let carries = |method: &Method| [Method::POST, Method::PUT, Method::PATCH].contains(method);
        let shot = |(method, weight): &(Method, f64)| Shot {
            method: method.clone(),
            body: if carries(method) { body.clone() } else { Bytes::new() },
            weight: *weight,
        };
        self.mix = mix.iter().map(shot).collect();
        self
    }

    /// Sends this share of the requests, 0 to 1, as POST with `body`, and the rest as GET.
    #[must_use]
    pub fn with_posts(mut self, share: f64, body: impl Into<Bytes>) -> Self {
        self.mix = vec![
            Shot { method: Method::GET, body: Bytes::new(), weight: 1.0 - share },
            Shot { method: Method::POST, body: body.into(), weight: share },
        ];
        self
    }

    /// Starts sending. The kept connections are opened before the first request is due.
    ///
    /// # Errors
    /// If a field has no meaning (a rate of nothing, no connection to send on), or a thread cannot be started.
    pub fn start(self) -> anyhow::Result<Running> {
        self.check()?;
        let stop = Arc::new(AtomicBool::new(false));
        let recorder = Recorder::new();
        let (told, book, load) = (stop.clone(), recorder.clone(), self.clone());
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || engine::run(self, book, told))
            .context("starting the generator's thread")?;
        Ok(Running { stop, load, recorder, thread: Some(thread) })
    }

    /// What is asked, for people.
    fn shown_target(&self) -> String {
        match self.target.scheme() {
            Some(_) => format!("{} through {}", self.target, self.address),
            None => format!("http://{}{}", self.address, self.target),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Pace::Open { rate } = self.pace
            && !(rate.is_finite() && rate > 0.0)
        {
            bail!("a rate of {rate} requests a second cannot be sent");
        }
        if self.connections == 0 && (self.pace == Pace::Closed || self.new_connections < 1.0) {
            bail!(
                "no kept connections: requests can only be sent if all of them go on new connections, in the open loop"
            );
        }
        if !(0.0..=1.0).contains(&self.new_connections) {
            bail!("the share of new connections is {}, not between 0 and 1", self.new_connections);
        }
        let usable = |weight: f64| weight.is_finite() && weight >= 0.0;
        if !self.mix.iter().all(|shot| usable(shot.weight)) || self.mix.iter().all(|shot| shot.weight == 0.0)
        {
            bail!("the mix of requests has no usable weights");
        }
        Ok(())
    }
}

impl Running {
    /// Stops sending; requests under way still end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What has been seen so far. Requests under way are in no count yet.
    pub fn so_far(&self) -> Report {
        self.recorder.report(&self.load)
    }

    /// What has been seen since the last call of this, or since the start: the figures of one phase under a load that
    /// goes on. A request counts in the phase in which it ends; [`Running::wait`] still reports the whole.
    pub fn phase(&self) -> Report {
        self.recorder.phase(&self.load)
    }

    /// Waits until everything has been sent and has ended. Blocks the thread; in a runtime use [`Running::finished`].
    ///
    /// # Errors
    /// If the generator itself could not work (its runtime or its pacing thread did not start).
    pub fn wait(mut self) -> anyhow::Result<Report> {
        let thread = self.thread.take().expect("only `wait` takes the thread, and it takes self");
        match thread.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Waits as [`Running::wait`] does, without blocking the runtime.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub async fn finished(self) -> anyhow::Result<Report> {
        tokio::task::spawn_blocking(move || self.wait()).await.context("waiting for the generator")?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Observer {
    /// Calls `see` for each request.
    pub fn new(see: impl Fn(&Seen<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(see))
    }

    fn see(&self, seen: &Seen<'_>) {
        (self.0)(seen);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
