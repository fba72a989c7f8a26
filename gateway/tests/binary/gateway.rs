//! A running `portolan run --files DIR` on free ports, ended by its pid when dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::http;

/// How long anything may take that should take a moment; generous, because test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Gateway {
    child: Child,
    pub(crate) edge: SocketAddr,
    pub(crate) cluster: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) status: SocketAddr,
}

/// The binary under test, with nothing of this process's environment that could be a setting.
pub(crate) fn portolan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs the binary to its end, which must come soon.
pub(crate) fn output(args: &[&str]) -> Output {
    let mut child = portolan()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test was built");
    let start = Instant::now();
    while child.try_wait().expect("it is a child of this process").is_none() {
        if start.elapsed() > PATIENCE {
            drop(child.kill());
            panic!("portolan {args:?} does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}

/// A port that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
}

impl Gateway {
    /// Starts a gateway on a folder and waits until it is ready.
    pub(crate) fn start(folder: &Path, more: &[&str]) -> Self {
        let folder = folder.to_str().expect("folders of tests have names in UTF-8");
        let mut gateway = Self::spawn(&[&["--files", folder], more].concat());
        gateway.ready();
        gateway
    }

    /// Starts a gateway on what these flags say and does not wait.
    pub(crate) fn spawn(more: &[&str]) -> Self {
        let [edge, cluster, admin, status] = [free(), free(), free(), free()];
        let child = portolan()
            .arg("run")
            .args(["--listen", &edge.to_string(), "--listen-cluster", &cluster.to_string()])
            .args(["--admin", &admin.to_string(), "--status", &status.to_string()])
            .args(["--all-namespaces", "--default-namespace", "default", "--workers", "2"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test was built");
        Self { child, edge, cluster, admin, status }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&mut self) {
        self.until("it is ready", |gateway| {
            http::fetch(gateway.status, "/readyz").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Asks until the condition holds; fails the test, with what the gateway logged, if it never does.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the gateway ended ({status}) before {what}:\n{}", self.log());
            }
            if start.elapsed() > PATIENCE {
                self.kill();
                panic!("after {PATIENCE:?} it is still not so that {what}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM, by pid.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the gateway is a child of this process")
    }

    /// Takes the next line of its standard output.
    pub(crate) fn next_line(&mut self) -> String {
        let mut line = String::new();
        let out = self.child.stdout.take().expect("standard output is piped");
        let mut reader = BufReader::with_capacity(1, out);
        reader.read_line(&mut line).expect("the gateway writes text");
        self.child.stdout = Some(reader.into_inner());
        line
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            drop(stderr.read_to_string(&mut log));
        }
        log
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}
