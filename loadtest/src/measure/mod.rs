//! Measuring a target at any speed.
//!
//! Where [`crate::load`] keeps each failure with its story, this generator counts, and costs as little as it can: it
//! shares a core with the upstreams of the proxy that it measures. HTTP/1.1 is spoken by an engine of its own: requests
//! are bytes made once, answers are read over and dropped, and nothing is allocated for a request. HTTP/2 is the `h2`
//! crate's.
//!
//! **Open loop** ([`Plan::rate`]): request number *i* is due at `start + i / rate` whatever the answers do, and its latency
//! runs from then. **Closed loop**: each lane (a connection, or a stream of one) sends its next request when the one before
//! has ended; the rate is what the target allows.
//!
//! Each thread has a single-threaded runtime with its own connections and counts ([`Plan::threads`], one by default).

mod answer;
mod book;
mod clock;
mod draw;
mod fault;
mod http1;
mod http2;
mod pace;
mod report;
mod request;
mod target;
mod thread;
mod tls;
mod wire;
mod work;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use self::book::{Book, Window};
pub use self::report::{Latency, Measured, Moment, Quantile, Trouble};
pub use self::request::Shot;
pub use self::target::Target;
use self::thread::Progress;
use self::tls::Tls;
pub use self::tls::Trust;
pub use self::wire::Wire;

/// How requests are sent over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time.
    Http1,
    /// HTTP/2, over TLS by ALPN, in the clear by prior knowledge: so many requests at a time.
    Http2 {
        /// Streams on each connection.
        streams: usize,
    },
}

/// What to send, where, how fast and how long. Made by [`Plan::to`]; every public field may be changed.
#[derive(Debug, Clone)]
pub struct Plan {
    address: SocketAddr,
    authority: String,
    tls: Option<Tls>,
    shown: String,
    protocol: Protocol,
    /// The mix of requests; each is drawn by its share.
    pub requests: Vec<Shot>,
    /// Requests a second in the open loop; none is the closed loop.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// The share of requests, 0 to 1, that go on a new connection each. HTTP/1.1 only.
    pub new_connections: f64,
    /// Threads; more than one only if one is not enough.
    pub threads: usize,
    /// How long requests are sent before they count.
    pub warm_up: Duration,
    /// How long requests are sent that count; none means until the count or [`Running::stop`].
    pub duration: Option<Duration>,
    /// How many requests are sent, those of the warm-up included; none means until the duration or [`Running::stop`].
    pub count: Option<u64>,
    /// How long a request may take, from its due time to its last byte.
    pub timeout: Duration,
    /// The statuses that are no failure.
    pub expected: RangeInclusive<u16>,
}

/// A generator at work. Dropping it stops the sending.
#[derive(Debug)]
pub struct Running {
    plan: Arc<Plan>,
    stop: Arc<AtomicBool>,
    window: Window,
    progress: Vec<Arc<Progress>>,
    threads: Vec<JoinHandle<anyhow::Result<Book>>>,
}

impl Plan {
    /// GETs of the target on 64 connections, as fast as they are answered, for ten seconds.
    ///
    /// # Errors
    /// If the target's name cannot stand in a certificate, or the certificates to trust are none.
    pub fn to(target: &Target, protocol: Protocol, trust: &Trust) -> anyhow::Result<Self> {
        let tls = match target.tls {
            true => Some(Tls::new(&target.host, trust, protocol.alpn())?),
            false => None,
        };
        Ok(Self {
            address: target.address,
            authority: target.authority.clone(),
            tls,
            shown: target.shown.clone(),
            protocol,
            requests: vec![Shot { path: target.path.clone(), ..Shot::get("/") }],
            rate: None,
            connections: 64,
            new_connections: 0.0,
            threads: 1,
            warm_up: Duration::ZERO,
            duration: Some(Duration::from_secs(10)),
            count: None,
            timeout: Duration::from_secs(5),
            expected: 200..=399,
        })
    }

    /// Starts sending. Connections are opened before the first request is due.
    ///
    /// # Errors
    /// If a field has no meaning (a rate of nothing, no connection to send on), or a thread cannot be started.
    pub fn start(self) -> anyhow::Result<Running> {
        self.check()?;
        let plan = Arc::new(self);
        let stop = Arc::new(AtomicBool::new(false));
        // A moment to open the connections, so that they are not part of the first latencies.
        let start = Instant::now() + Duration::from_millis(10 + plan.connections as u64 / 2);
        let window = plan.window(start);
        let (mut progress, mut threads) = (Vec::new(), Vec::new());
        for number in 0..plan.threads {
            let part = thread::Part { number, start, window, stop: stop.clone(), progress: Arc::default() };
            progress.push(part.progress.clone());
            let plan = plan.clone();
            let thread = std::thread::Builder::new()
                .name(format!("measure-{number}"))
                .spawn(move || thread::run(plan, &part))
                .context("starting a thread of the generator")?;
            threads.push(thread);
        }
        Ok(Running { plan, stop, window, progress, threads })
    }

    /// One connection as the plan opens them, for whoever does with it what no plan says.
    ///
    /// # Errors
    /// If it cannot be opened, is not trusted or speaks another protocol.
    pub async fn connect(&self) -> anyhow::Result<Wire> {
        Wire::open(self).await.map_err(|fault| anyhow::anyhow!("{}: {}", fault.kind, fault.reason))
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Some(rate) = self.rate
            && !(rate.is_finite() && rate > 0.0)
        {
            bail!("a rate of {rate} requests a second cannot be sent");
        }
        if self.connections < self.threads || self.threads == 0 {
            bail!("{} connections for {} threads: each needs one at least", self.connections, self.threads);
        }
        if matches!(self.protocol, Protocol::Http2 { streams: 0 }) {
            bail!("no streams: a connection of HTTP/2 needs one at least");
        }
        if !(0.0..=1.0).contains(&self.new_connections) {
            bail!("the share of new connections is {}, not between 0 and 1", self.new_connections);
        }
        if self.new_connections > 0.0 && self.protocol != Protocol::Http1 {
            bail!("requests on new connections can only be sent with HTTP/1.1");
        }
        let usable = |weight: f64| weight.is_finite() && weight >= 0.0;
        if !self.requests.iter().all(|shot| usable(shot.weight))
            || self.requests.iter().all(|shot| shot.weight == 0.0)
        {
            bail!("the mix of requests has no usable weights");
        }
        Ok(())
    }

    fn window(&self, start: Instant) -> Window {
        let start = start + self.warm_up;
        let every = self.duration.map_or(Duration::from_secs(1), |duration| duration / 200);
        Window {
            start,
            end: self.duration.map(|duration| start + duration),
            every: every.clamp(Duration::from_millis(50), Duration::from_secs(60)),
            by_due: self.rate.is_some(),
        }
    }
}

impl Protocol {
    /// Its name in TLS.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 { .. } => b"h2",
        }
    }
}

impl Running {
    /// Stops sending; requests under way have half a second to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Requests answered and failed so far, a tenth of a second old at most.
    pub fn so_far(&self) -> (u64, u64) {
        self.progress
            .iter()
            .map(|progress| progress.read())
            .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// How much of its time has gone by, the warm-up not counted; 1 at the end, 0 throughout if it has none.
    pub fn share_done(&self) -> f64 {
        let gone = self.window.start.elapsed().as_secs_f64();
        self.plan.duration.map_or(0.0, |duration| (gone / duration.as_secs_f64()).clamp(0.0, 1.0))
    }

    /// Whether everything has been sent and has ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until everything has been sent and has ended. Blocks the thread.
    ///
    /// # Errors
    /// If the generator itself could not work (no runtime, no timer, a task that ended badly).
    pub fn wait(mut self) -> anyhow::Result<Measured> {
        let mut book = Book::new(self.window);
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(one) => book.add(one?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(Measured::new(&self.plan, self.window, &book))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
