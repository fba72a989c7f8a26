//! One proxy, running.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::machine::Cores;
use super::processes::Tree;
use super::setup::Bench;
use super::tether::tethered;

/// How long a start may take: 100,000 endpoints are read by then on a slow machine.
const START: Duration = Duration::from_secs(60);
/// How long a stop may take before it is enforced.
const STOP: Duration = Duration::from_secs(3);

/// A process and all that it starts; ended by their numbers when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it on the proxy's core; what it says goes into `folder`.
    pub(super) fn start(command: &Command, bench: &Bench, folder: &Path) -> anyhow::Result<Self> {
        Self::start_command(tethered(&bench.ourselves, command), bench.cores, folder)
    }

    fn start_command(mut command: Command, cores: Cores, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join("stderr.log");
        command.stdin(std::process::Stdio::null());
        command.stdout(File::create(folder.join("stdout.log"))?).stderr(File::create(&log)?);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = cores.on_proxy(|| command.spawn())?.with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, log })
    }

    /// Its processes as they are now.
    pub(super) fn tree(&self) -> Tree {
        Tree::of(self.child.id())
    }

    /// Waits until it answers a request with 200: then it listens, and knows its upstreams.
    pub(super) async fn answers(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.until(async || answers(address).await, "no request was answered with 200").await
    }

    /// Waits until it takes connections.
    pub(super) async fn listens(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.until(async || TcpStream::connect(address).await.is_ok(), "nobody listens for TLS").await
    }

    async fn until(&mut self, condition: impl AsyncFn() -> bool, else_: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        while !condition().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}): {}", self.said());
            }
            if start.elapsed() > START {
                bail!("{else_} for {START:?}: {}", self.said());
            }
            // A start cannot be awaited but by asking.
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The end of what it said.
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).trim().to_owned();
        let start = text.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
        if text.is_empty() { "it said nothing".to_owned() } else { text[start..].to_owned() }
    }

    /// Ends it, and waits so long until it has ended; gives whether it has.
    pub(super) fn stop(mut self, patience: Duration) -> bool {
        signal(self.child.id(), Signal::TERM);
        self.wait(patience).is_some()
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let tree = self.tree();
        // Once it was waited for its number may be another's.
        if self.wait(Duration::ZERO).is_some() {
            return;
        }
        signal(self.child.id(), Signal::TERM);
        if self.wait(STOP).is_none() {
            for &pid in tree.pids() {
                signal(pid, Signal::KILL);
            }
            // Gone or never there; both are what is wanted.
            drop(self.child.wait());
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that has ended by itself is no error.
        let _sent_or_gone = kill_process(pid, signal).is_ok();
    }
}

/// Whether a request on a new connection is answered with 200.
async fn answers(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await?;
        std::io::Result::Ok(begin)
    };
    timeout(Duration::from_secs(1), ask)
        .await
        .is_ok_and(|begin| begin.is_ok_and(|begin| begin.starts_with(b"HTTP/1.1 200")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn shell(script: &str, folder: &Path) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Server::start_command(command, Cores { proxy: 0, load: 0 }, folder).unwrap()
    }

    #[tokio::test]
    async fn who_ends_at_once_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = shell("echo the port is taken >&2; exit 3", folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        let error = server.answers(nobody).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("the port is taken"), "{error}");
    }

    #[tokio::test]
    async fn children_end_with_it_even_if_they_do_not_want_to() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            "trap '' TERM; (trap '' TERM; while :; do sleep 0.05; done) & while :; do sleep 0.05; done";
        let server = shell(script, folder.path());
        while server.tree().pids().len() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        let shells: Vec<_> = server.tree().pids()[..2].to_vec();
        drop(server);
        let is_there = |pid: &&u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        let start = Instant::now();
        while shells.iter().any(|pid| is_there(&pid)) {
            assert!(start.elapsed() < Duration::from_secs(5), "one of {shells:?} is still there");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
