//! Whole requests through a gateway, with nothing of the data path left out.
//!
//! They go over loopback, one at a time, so that the worker sleeps between any two steps and takes the same way each
//! time. Only outside interfaces are used: what becomes of the data path within is not this file's business.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portolan_model::{Balancing, ClusterPolicy, Role};
use portolan_proxy::{AccessLog, AccessLogOutput, ListenerState, LiveConfig, Proxy, ProxyConfig};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::callgrind::Run;
use crate::wire::{self, Wire};
use crate::world;

/// Requests of the first run, and how many more there are in the second.
const FEW: u32 = 200;
const MORE: u32 = 1000;

/// Longer than anything takes, even under valgrind.
const PAUSE: Duration = Duration::from_millis(3);

/// What is asked of what kind of gateway.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    workers: usize,
    services: u32,
    /// Of each Service that is not asked.
    endpoints: u32,
    balancing: Balancing,
    logged: bool,
    ask: Ask,
}

enum Ask {
    /// GET on so many connections in turn.
    Get { connections: usize },
    /// GET with so many header fields more.
    Fields(usize),
    /// POST with a body of so many bytes.
    Post(usize),
    /// GET on a new connection each.
    Connect,
    /// GET on one HTTP/2 connection.
    Http2,
}

/// What the others vary.
const PLAIN: Case = Case {
    name: "request/h1",
    workers: 1,
    services: 1,
    endpoints: 1,
    balancing: Balancing::RoundRobin,
    logged: false,
    ask: Ask::Get { connections: 1 },
};

/// Some seconds each.
pub(crate) const CASES: &[Case] = &[
    PLAIN,
    Case { name: "request/h1/20-fields-more", ask: Ask::Fields(20), ..PLAIN },
    Case { name: "request/h1/post-10-KiB", ask: Ask::Post(10 * 1024), ..PLAIN },
    Case { name: "request/h1/logged", logged: true, ..PLAIN },
    Case { name: "request/h1/new-connection", ask: Ask::Connect, ..PLAIN },
    Case { name: "request/h2c", ask: Ask::Http2, ..PLAIN },
    Case { name: "request/h1/5000-services", services: 5000, ..PLAIN },
    Case { name: "request/h1/100000-endpoints", services: 1000, endpoints: 100, ..PLAIN },
    Case { name: "request/h1/least-connection", balancing: Balancing::LeastConnection, ..PLAIN },
    Case { name: "request/h1/16-connections", ask: Ask::Get { connections: 16 }, ..PLAIN },
    Case { name: "request/h1/2-workers", workers: 2, ask: Ask::Get { connections: 16 }, ..PLAIN },
];

impl Case {
    /// Instructions of the workers, and of who writes their log, for each request.
    pub(crate) fn count(&self) -> Result<u64> {
        let few = self.count_all(FEW)?;
        let many = self.count_all(FEW + MORE)?;
        let more = many.checked_sub(few).context("more requests take more instructions")?;
        Ok(more / u64::from(MORE))
    }

    /// The same from the start of a gateway to its end.
    fn count_all(&self, requests: u32) -> Result<u64> {
        let upstream = wire::answer_all(102)?;
        let mut run = Run::beside_main()?;
        run.command.args(["--serve", self.name, &upstream.to_string()]);
        run.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut gateway = run.command.spawn().context("cannot run valgrind; install it")?;
        let address = address(&mut gateway)?;
        let asked = self.ask(address, requests).with_context(|| format!("a request of {} failed", self.name));
        // Its standard input closes, which ends it.
        drop(gateway.stdin.take());
        let status = gateway.wait()?;
        asked?;
        ensure!(status.success(), "the gateway of {} failed: {status}", self.name);
        run.instructions()
    }

    fn ask(&self, gateway: SocketAddr, requests: u32) -> Result<()> {
        let path = format!("/{}/items/7", world::name(world::asked(self.services)));
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n");
        let get = format!("{head}\r\n");
        match self.ask {
            Ask::Get { connections } => {
                let wires = (0..connections).map(|_| Wire::connect(gateway));
                let mut wires: Vec<_> = wires.collect::<io::Result<_>>()?;
                for number in 0..requests as usize {
                    wires[number % connections].ask(get.as_bytes())?;
                }
            }
            Ask::Fields(more) => {
                let more = (0..more).map(|field| format!("X-Field-{field}: a value of some length\r\n"));
                let message = format!("{head}{}\r\n", more.collect::<String>());
                let mut wire = Wire::connect(gateway)?;
                for _ in 0..requests {
                    wire.ask(message.as_bytes())?;
                }
            }
            Ask::Post(length) => {
                let head = head.replacen("GET", "POST", 1);
                let message = format!("{head}Content-Length: {length}\r\n\r\n{}", "x".repeat(length));
                let mut wire = Wire::connect(gateway)?;
                for _ in 0..requests {
                    wire.ask(message.as_bytes())?;
                }
            }
            Ask::Connect => {
                for _ in 0..requests {
                    let mut wire = Wire::connect(gateway)?;
                    // The worker accepts, then reads, then sees the end: were two of them there at once, it would take
                    // another way. Nothing outside of it tells when it sleeps again.
                    sleep(PAUSE);
                    wire.ask(get.as_bytes())?;
                    drop(wire);
                    sleep(PAUSE);
                }
            }
            Ask::Http2 => {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(wire::ask_http2(gateway, &path, requests))?;
            }
        }
        Ok(())
    }
}

/// Where the gateway listens: its first line.
fn address(gateway: &mut Child) -> Result<SocketAddr> {
    let output = gateway.stdout.take().context("standard output is piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    line.trim().parse().context("the gateway did not say where it listens")
}

/// Under valgrind: the gateway of this case, until standard input closes.
pub(crate) fn serve(name: &str, upstream: SocketAddr) -> Result<()> {
    let case = CASES.iter().find(|case| case.name == name).context("a case of this name")?;
    let mut snapshot = world::services(case.services, case.endpoints);
    world::listen(&mut snapshot, Role::Edge);
    let policy = Arc::new(ClusterPolicy { balancing: case.balancing, ..ClusterPolicy::default() });
    world::put(&mut snapshot, world::asked(case.services), [upstream].into_iter(), &policy);

    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let access_log = if case.logged { AccessLog::All } else { AccessLog::Errors };
        let live = LiveConfig { access_log, ..LiveConfig::default() };
        let config = ProxyConfig {
            workers: case.workers,
            pseudonym: "portolan-bench".into(),
            access_log: AccessLogOutput::Writer(Box::new(io::sink())),
            ..ProxyConfig::default()
        };
        let (_live, live) = watch::channel(Arc::new(live));
        let (_snapshots, snapshots) = watch::channel(Arc::new(snapshot));
        let proxy = Proxy::start(config, live, snapshots, &prometheus::Registry::new())?;
        let mut listeners = proxy.listeners();
        let address = match &listeners.wait_for(|listeners| !listeners.is_empty()).await?[0].state {
            ListenerState::Bound { local } => *local,
            other => bail!("the listener is {other:?}"),
        };
        println!("{address}");
        io::stdout().flush()?;
        tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
        // Taking it down would be counted too, and who takes what down is a matter of luck.
        #[expect(clippy::exit, reason = "the process was for this alone")]
        std::process::exit(0)
    })
}
