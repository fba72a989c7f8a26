//! The server behind the gateway.
//!
//! It answers with its own name and version, in the fields `x-upstream` and `x-version` and in a small JSON body, and
//! never does more work than that unless it is asked to: with a query of `?echo` the body tells the method, the path, the
//! fields and the local address that the request came to; `?body=SIZE`, or a path that ends in `/b/SIZE` with a size such as
//! `100`, `64k` or `1m`, sets the size of one answer. Everything else is
//! set by [`Switches`], which may be turned while it runs: a delay, a share of failures and their [`Mode`], the size of
//! every answer, and its health. `/healthz` and `/readyz` answer 200 while it is well and ready, `/livez` while it is
//! well.
//!
//! It speaks HTTP/1.1 by code of its own over `httparse`, because it also stands behind the proxies that are measured, on
//! a core that it shares with the load: a request takes it two system calls and next to nothing else.
//!
//! An answer leaves in one write, head and body together, unless its body is large: the end of the process cannot cut it.
//!
//! A server in another process is turned by `PUT /switches?latency=20ms&failures=5%25&mode=reset&body=1024&ready=no`, and
//! `PUT /crash` ends it on the spot, without an answer to anyone.

mod answer;
mod connection;
mod request;
mod serve;
mod switches;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use tokio::sync::watch;

use self::answer::Answerer;

pub use self::switches::{Mode, Switches};

/// An upstream to be started.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// What it calls itself.
    pub name: String,
    /// What it says its version is.
    pub version: String,
    /// Where it listens, at least one address; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    /// How it behaves from the start.
    pub switches: Arc<Switches>,
}

/// An upstream that runs, on a thread of its own. Dropping it ends it at once, as [`RunningUpstream::kill`] does.
#[derive(Debug)]
pub struct RunningUpstream {
    name: String,
    addresses: Vec<SocketAddr>,
    switches: Arc<Switches>,
    end: watch::Sender<End>,
    thread: Option<JoinHandle<()>>,
}

/// How an upstream is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// No new connections; what is under way is answered.
    Finish,
    /// Every socket closed at once.
    Kill,
    /// The same, because a request asked for it.
    Crash,
}

impl Upstream {
    /// An upstream of this name on any port of 127.0.0.1, quick and well.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: "dev".to_owned(),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            switches: Arc::new(Switches::default()),
        }
    }

    /// The same at this address.
    #[must_use]
    pub fn at(self, listen: SocketAddr) -> Self {
        Self { listen: vec![listen], ..self }
    }

    /// Starts it; when this returns, connections are accepted.
    ///
    /// # Errors
    /// If an address cannot be bound, there is none, or a thread cannot be started.
    pub fn start(self) -> anyhow::Result<RunningUpstream> {
        if self.listen.is_empty() {
            bail!("{} has no address to listen on", self.name);
        }
        let listeners = self.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>()?;
        let (end, ends) = watch::channel(End::NotYet);
        let answerer = Answerer::new(&self.name, &self.version, self.switches.clone(), end.clone());
        let thread = std::thread::Builder::new()
            .name(format!("up-{}", self.name))
            .spawn(move || serve::run(listeners, answerer, ends))
            .context("starting the upstream's thread")?;
        let (name, switches) = (self.name, self.switches);
        Ok(RunningUpstream { name, addresses, switches, end, thread: Some(thread) })
    }
}

impl RunningUpstream {
    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens; the first address if there are several.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Everywhere it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns when a `PUT /crash` has ended it, else never.
    pub async fn crashed(&self) {
        // This end of the channel is held here: the wait cannot fail.
        let _crashed = self.end.subscribe().wait_for(|end| *end == End::Crash).await.is_ok();
    }

    /// How it behaves; may be turned at any time.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Ends it as the end of a process does: every socket is closed at once, requests under way get no answer. When
    /// this returns, the port is free.
    pub fn kill(mut self) {
        self.end_with(End::Kill);
    }

    /// Ends it as a well-behaved server does: it accepts no more, answers what is under way, and closes each connection
    /// after its answer. Blocks until then.
    pub fn finish(mut self) {
        self.end_with(End::Finish);
    }

    fn end_with(&mut self, end: End) {
        self.end.send_replace(end);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn bind(address: &SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("binding {address}"))?;
    // The standard library's queue of 128 is soon full when a gateway opens its connections all at once.
    socket2::SockRef::from(&listener).listen(4096)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Drop for RunningUpstream {
    fn drop(&mut self) {
        self.end_with(End::Kill);
    }
}
