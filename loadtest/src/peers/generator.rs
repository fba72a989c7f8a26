//! The load of a measurement, as a process of its own: many connections on one thread, as little work for each request
//! as there can be, so that the proxy is busy and not this.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout_at};

use super::answer::missing;
use super::connection::{self, Connection, Connector};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much is read at once.
const PIECE: usize = 64 << 10;
/// The pacer of the open loop sleeps for no less; what is due within leaves together.
const STEP: Duration = Duration::from_micros(50);

/// The options of `peers-load`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where to connect.
    address: SocketAddr,
    /// The path.
    #[arg(long, default_value = "/")]
    path: String,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// HTTP/2, with so many requests at once on each connection.
    #[arg(long)]
    streams: Option<u32>,
    /// TLS 1.3, whoever answers.
    #[arg(long)]
    tls: bool,
    /// A new connection for each request.
    #[arg(long)]
    new_connections: bool,
    /// POST so many bytes.
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// Requests a second; without it, as fast as the answers come.
    #[arg(long)]
    rate: Option<f64>,
    /// For how long.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Duration,
}

/// What all connections share.
struct Work {
    options: Options,
    connector: Connector,
    start: Instant,
    /// Requests due by now and not yet sent, in the open loop.
    due: Option<Arc<Semaphore>>,
    sent: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
    errors: RefCell<BTreeMap<&'static str, u64>>,
    last: Cell<Instant>,
}

/// Why a request failed.
type Fault = &'static str;

/// Sends requests for the time given and prints what came of them as JSON.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = runtime.block_on(LocalSet::new().run_until(send_all(options.clone())))?;
    let latencies = work.latencies.borrow();
    let elapsed = work.last.get().saturating_duration_since(work.start).max(options.duration);
    let at = |quantile| latencies.value_at_quantile(quantile) as f64;
    let report = json!({
        "requests": latencies.len(),
        "requests_per_second": latencies.len() as f64 / elapsed.as_secs_f64(),
        "latency_us": { "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999) },
        "errors": &*work.errors.borrow(),
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(ExitCode::SUCCESS)
}

async fn send_all(options: Options) -> anyhow::Result<Rc<Work>> {
    let start = Instant::now();
    let work = Rc::new(Work {
        connector: Connector::new(options.tls, options.streams.is_some())?,
        start,
        due: options.rate.map(|_| Arc::new(Semaphore::new(0))),
        sent: Cell::new(0),
        latencies: RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3)?),
        errors: RefCell::default(),
        last: Cell::new(start),
        options,
    });
    if let (Some(due), Some(rate)) = (&work.due, work.options.rate) {
        let (due, duration) = (due.clone(), work.options.duration);
        std::thread::spawn(move || pace(&due, start, rate, duration));
    }
    let mut lanes = Vec::new();
    for _ in 0..work.options.connections {
        match work.options.streams {
            None => lanes.push(tokio::task::spawn_local(http1(work.clone()))),
            Some(streams) => {
                let connection = open_http2(&work).await.context("cannot open a connection of HTTP/2")?;
                let lane = || tokio::task::spawn_local(http2(work.clone(), connection.clone()));
                lanes.extend((0..streams).map(|_| lane()));
            }
        }
    }
    for lane in lanes {
        lane.await?;
    }
    Ok(work)
}

/// Gives a permit for each request as it becomes due. A thread of its own wakes closer to the time than a runtime, whose
/// timers count in milliseconds.
fn pace(due: &Semaphore, start: Instant, rate: f64, duration: Duration) {
    let mut given = 0;
    loop {
        let elapsed = start.elapsed().min(duration);
        let by_now = (elapsed.as_secs_f64() * rate) as usize;
        due.add_permits(by_now - given);
        given = by_now;
        if elapsed >= duration {
            return due.close();
        }
        let next = Duration::from_secs_f64((given + 1) as f64 / rate);
        std::thread::sleep(next.saturating_sub(start.elapsed()).max(STEP));
    }
}

impl Work {
    /// Waits for a turn; gives when the request is due, nothing if no more are sent.
    async fn next(&self) -> Option<Instant> {
        let Some(due) = &self.due else {
            let now = Instant::now();
            return (now < self.start + self.options.duration).then_some(now);
        };
        due.acquire().await.ok()?.forget();
        let number = self.sent.get();
        self.sent.set(number + 1);
        let rate = self.options.rate.expect("the open loop has a rate");
        Some(self.start + Duration::from_secs_f64(number as f64 / rate))
    }

    fn ended(&self, due: Instant, result: Result<(), Fault>) {
        let now = Instant::now();
        self.last.set(now);
        match result {
            Ok(()) => {
                let micros = now.saturating_duration_since(due).as_micros();
                let micros = u64::try_from(micros).unwrap_or(u64::MAX);
                self.latencies.borrow_mut().saturating_record(micros);
            }
            Err(kind) => *self.errors.borrow_mut().entry(kind).or_default() += 1,
        }
    }

    fn request(&self) -> Vec<u8> {
        let Options { address, path, body, new_connections, .. } = &self.options;
        let close = if *new_connections { "connection: close\r\n" } else { "" };
        let head = match body {
            0 => format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{close}\r\n"),
            length => {
                format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n{close}\r\n")
            }
        };
        [head.into_bytes(), vec![b'.'; *body]].concat()
    }
}

/// One connection of HTTP/1.1, opened again whenever it is gone.
async fn http1(work: Rc<Work>) {
    let (request, mut piece) = (work.request(), vec![0; PIECE]);
    let mut kept: Option<Connection> = None;
    while let Some(due) = work.next().await {
        let exchange = async {
            let open = match &mut kept {
                Some(open) => open,
                none @ None => {
                    none.insert(work.connector.open(work.options.address).await.map_err(|_| "connect")?)
                }
            };
            open.write_all(&request).await.map_err(|_| "write")?;
            open.flush().await.map_err(|_| "write")?;
            answer(open, &mut piece).await
        };
        let result = timeout_at(due + PATIENCE, exchange).await.unwrap_or(Err("timeout"));
        work.ended(due, result);
        if work.options.new_connections
            && let Some(mut open) = kept.take()
        {
            // The port of whoever closes first is not free for a minute, and the proxy has only one in use.
            let close = open.read(&mut piece);
            drop(timeout_at(Instant::now() + Duration::from_millis(100), close).await);
        }
        if result.is_err() {
            kept = None;
        }
    }
}

/// Reads one answer to its end; `piece` is only a place.
async fn answer(open: &mut Connection, piece: &mut [u8]) -> Result<(), Fault> {
    let mut length = 0;
    let mut still = loop {
        match open.read(&mut piece[length..]).await {
            Ok(0) => return Err("closed"),
            Ok(more) => length += more,
            Err(_) => return Err("reset"),
        }
        match missing(&piece[..length]) {
            Ok(Some(missing)) => break missing,
            Ok(None) if length < piece.len() => {}
            Ok(None) => return Err("protocol"),
            Err(_) => return Err("status"),
        }
    };
    while still > 0 {
        match open.read(piece).await {
            Ok(0) => return Err("cut"),
            Ok(more) => still = still.saturating_sub(more),
            Err(_) => return Err("cut"),
        }
    }
    Ok(())
}

async fn open_http2(work: &Work) -> anyhow::Result<SendRequest<Empty<&'static [u8]>>> {
    let open = work.connector.open(work.options.address).await?;
    let (connection, driver) = http2::handshake(connection::Local, TokioIo::new(open)).await?;
    tokio::task::spawn_local(driver);
    Ok(connection)
}

/// One of the requests at once on a connection of HTTP/2.
async fn http2(work: Rc<Work>, mut connection: SendRequest<Empty<&'static [u8]>>) {
    let scheme = if work.options.tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", work.options.address, work.options.path);
    while let Some(due) = work.next().await {
        let exchange = async {
            let request = http::Request::get(&uri).body(Empty::new())?;
            connection.ready().await?;
            let mut response = connection.send_request(request).await?;
            if response.status() != http::StatusCode::OK {
                bail!("status {}", response.status());
            }
            while let Some(frame) = response.frame().await {
                frame?;
            }
            Ok(())
        };
        let result = timeout_at(due + PATIENCE, exchange).await;
        let result = result.map_err(|_| "timeout").and_then(|result| result.map_err(|_| "stream"));
        work.ended(due, result);
        if result.is_err() && connection.is_closed() {
            return;
        }
    }
}
