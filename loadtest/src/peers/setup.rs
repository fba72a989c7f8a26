//! The work that every proxy is set up for: one route to a cluster of four upstream ports, connections to them kept.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::certificate::Certificate;
use super::machine::Cores;
use super::peer::Programs;
use super::ports;
use super::tether::tethered;

const UPSTREAMS: usize = 4;
/// Bytes of a small answer.
pub(super) const SMALL: &str = "102";

/// What stands during all measurements.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) cores: Cores,
    pub(super) programs: Programs,
    pub(super) certificate: Certificate,
    pub(super) upstreams: Vec<SocketAddr>,
    /// This program, which is also the load and the upstream.
    pub(super) ourselves: PathBuf,
    // Ended before the folder goes.
    _backend: Backend,
    folder: TempDir,
}

/// How one proxy is to be set up, once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup<'a> {
    /// For its configuration and whatever it writes; it is empty before.
    pub(super) folder: &'a Path,
    /// Where it takes HTTP/1.1, and HTTP/2 with prior knowledge.
    pub(super) plain: SocketAddr,
    /// Where it takes TLS 1.3 with either.
    pub(super) tls: SocketAddr,
    pub(super) certificate: &'a Certificate,
    pub(super) upstreams: &'a [SocketAddr],
    pub(super) shape: Shape,
}

/// What differs from case to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Whether the endpoint with the fewest requests in flight is taken, instead of each in turn.
    pub(super) least_connection: bool,
    /// Whether each request is written to a file.
    pub(super) logged: bool,
    /// Routes in the table; each beyond the first leads to a Service that nobody asks.
    pub(super) routes: usize,
    /// Endpoints of each of those other Services.
    pub(super) other_endpoints: usize,
    /// Worker threads.
    pub(super) workers: usize,
    /// Whether it takes TLS.
    pub(super) tls: bool,
    /// Changes of endpoints a second while it runs; 0 for none.
    pub(super) churn: u32,
}

impl Shape {
    /// One worker, one route, round robin.
    pub(super) const PLAIN: Self = Self {
        least_connection: false,
        logged: false,
        routes: 1,
        other_endpoints: 1,
        workers: 1,
        tls: false,
        churn: 0,
    };
}

/// The upstream's process.
#[derive(Debug)]
struct Backend(Child);

impl Bench {
    /// Makes the work folder, and starts the upstreams on the core that this thread is bound to.
    pub(super) async fn set_up(cores: Cores, programs: Programs) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("portolan-peers-").tempdir()?;
        let ourselves = std::env::current_exe().context("cannot find this program itself")?;
        let (backend, upstreams) = Backend::start(&ourselves)?;
        Ok(Self {
            cores,
            programs,
            certificate: Certificate::make(folder.path())?,
            upstreams,
            ourselves,
            _backend: backend,
            folder,
        })
    }

    /// A folder for one start of one proxy; it goes when dropped.
    pub(super) fn work_folder(&self) -> anyhow::Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.folder)?)
    }

    /// What a proxy is set up for in this folder, on ports that are free now.
    pub(super) fn setup<'a>(&'a self, folder: &'a Path, shape: Shape) -> anyhow::Result<Setup<'a>> {
        let addresses = ports::free(2)?;
        Ok(Setup {
            folder,
            plain: addresses[0],
            tls: addresses[1],
            certificate: &self.certificate,
            upstreams: &self.upstreams,
            shape,
        })
    }
}

impl Backend {
    fn start(program: &Path) -> anyhow::Result<(Self, Vec<SocketAddr>)> {
        let ports = ports::free(UPSTREAMS)?;
        let mut backend = Command::new(program);
        let addresses: Vec<_> = ports.iter().map(SocketAddr::to_string).collect();
        backend.args(["backend", "--name", "echo", "--body", SMALL, "--listen", &addresses.join(",")]);
        let mut command = tethered(program, &backend);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut backend = Self(command.spawn().context("cannot start the upstreams")?);
        let output = backend.0.stdout.take().context("the standard output was piped")?;
        // One line for each address, once connections are accepted there.
        let lines = BufReader::new(output)
            .lines()
            .take(UPSTREAMS)
            .filter(|line| line.as_ref().is_ok_and(|line| line.contains("listens on")));
        if lines.count() < UPSTREAMS {
            bail!("the upstreams ended before they listened on {ports:?}");
        }
        Ok((backend, ports))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended by itself; nobody can be told more than that.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Setups as the configurations of the peers are tested with.
#[cfg(test)]
pub(super) mod for_tests {
    use super::*;

    pub(in super::super) fn plain<T>(use_it: impl FnOnce(&Setup<'_>) -> T) -> T {
        with(Shape::PLAIN, use_it)
    }

    pub(in super::super) fn logged_least_connection<T>(use_it: impl FnOnce(&Setup<'_>) -> T) -> T {
        with(Shape { logged: true, least_connection: true, ..Shape::PLAIN }, use_it)
    }

    pub(in super::super) fn with<T>(shape: Shape, use_it: impl FnOnce(&Setup<'_>) -> T) -> T {
        let certificate = Certificate {
            certificate: "/bench/certificate.pem".into(),
            key: "/bench/key.pem".into(),
            both: "/bench/both.pem".into(),
        };
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        use_it(&Setup {
            folder: Path::new("/bench/proxy"),
            plain: address(20001),
            tls: address(20002),
            certificate: &certificate,
            upstreams: &[9001, 9002, 9003, 9004].map(address),
            shape,
        })
    }
}
