//! The server behind the gateway.
//!
//! It answers with its own name, in the field `x-upstream` and in a small JSON body, and never does more work than
//! that unless it is asked to: with a query of `?echo` the body tells the method, the path and the fields that arrived,
//! `?body=SIZE` sets the size of one answer. Everything else is set by [`Switches`], which may be turned while it runs:
//! a delay, a share of failures and their [`Mode`], the size of every answer, and whether `/healthz` is well.
//!
//! A server in another process is turned by `PUT /switches?latency=20ms&failures=5%25&mode=reset&body=1024&healthy=no`.

mod answer;
mod serve;
mod switches;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::watch;

pub use self::switches::{Mode, Switches};

/// An upstream to be started.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// What it calls itself.
    pub name: String,
    /// Where it listens; port 0 takes any.
    pub listen: SocketAddr,
    /// How it behaves from the start.
    pub switches: Arc<Switches>,
}

/// An upstream that runs, on a thread of its own. Dropping it ends it at once, as [`RunningUpstream::kill`] does.
#[derive(Debug)]
pub struct RunningUpstream {
    name: String,
    address: SocketAddr,
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
}

impl Upstream {
    /// An upstream of this name on any port of 127.0.0.1, quick and well.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            switches: Arc::new(Switches::default()),
        }
    }

    /// The same at this address.
    #[must_use]
    pub fn at(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// Starts it; when this returns, connections are accepted.
    ///
    /// # Errors
    /// If the address cannot be bound or a thread cannot be started.
    pub fn start(self) -> anyhow::Result<RunningUpstream> {
        let listener =
            std::net::TcpListener::bind(self.listen).with_context(|| format!("binding {}", self.listen))?;
        // The standard library's queue of 128 is soon full when a gateway opens its connections all at once.
        socket2::SockRef::from(&listener).listen(4096)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (end, ends) = watch::channel(End::NotYet);
        let (name, switches) = (self.name.clone(), self.switches.clone());
        let thread = std::thread::Builder::new()
            .name(format!("up-{}", self.name))
            .spawn(move || serve::run(listener, &name, switches, ends))
            .context("starting the upstream's thread")?;
        Ok(RunningUpstream { name: self.name, address, switches: self.switches, end, thread: Some(thread) })
    }
}

impl RunningUpstream {
    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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

impl Drop for RunningUpstream {
    fn drop(&mut self) {
        self.end_with(End::Kill);
    }
}
