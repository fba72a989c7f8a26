//! A running `portolan run --files DIR` with one worker, so that all who call share its connections to the endpoints;
//! its access log and what it says on standard error are kept.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(20);
/// What the process may have grown by, beside 5 %: the table of a run's metrics, the arenas of its allocator.
const GROWTH_KIB: u64 = 4 * 1024;

pub(crate) struct Gateway {
    child: Child,
    pub(crate) edge: SocketAddr,
    pub(crate) cluster: SocketAddr,
    status: SocketAddr,
    log: Option<JoinHandle<AccessLog>>,
    said: Option<JoinHandle<String>>,
    _folder: tempfile::TempDir,
}

/// The lines of the access log by client, in their order.
pub(crate) type AccessLog = HashMap<String, Vec<Line>>;

/// What matters of a line.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Line {
    client: String,
    pub(crate) status: u16,
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) attempts: u32,
}

/// A Service, its hosts and its endpoints.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) hosts: String,
    pub(crate) endpoints: Vec<SocketAddr>,
}

impl Gateway {
    /// Serves these Services with these further flags, and is ready.
    pub(crate) fn start(services: &[Service], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for service in services {
            let file = folder.path().join(format!("{}.yaml", service.name));
            std::fs::write(file, service.manifests()).unwrap();
        }
        let [edge, cluster, admin, status] = [free(), free(), free(), free()];
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .env_clear()
            .args(["run", "--files", folder.path().to_str().unwrap(), "--all-namespaces", "--workers", "1"])
            .args(["--default-namespace", "default", "--access-log", "all"])
            .args(["--drain-delay", "0s", "--drain-timeout", "1s"])
            .args(["--listen", &edge.to_string(), "--listen-cluster", &cluster.to_string()])
            .args(["--admin", &admin.to_string(), "--status", &status.to_string()])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test was built");
        let (lines, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let log = std::thread::spawn(move || read_log(BufReader::new(lines)));
        let said = std::thread::spawn(move || std::io::read_to_string(errors).unwrap());
        let (log, said) = (Some(log), Some(said));
        let gateway = Self { child, edge, cluster, status, log, said, _folder: folder };
        until("it is ready", || gateway.page("/readyz").is_some_and(|page| page.starts_with("HTTP/1.1 200")));
        gateway
    }

    /// Files that the process has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the gateway is alive").count()
    }

    /// Memory that it has in use.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).expect("the gateway is alive")
    }

    /// Processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Waits until it has closed what it opened for its callers, and has no more memory than before.
    pub(crate) fn is_as_before(&self, files: usize, memory_kib: u64) {
        until("its files are closed", || self.open_files() <= files + 2);
        let most = memory_kib + memory_kib / 20 + GROWTH_KIB;
        until(&format!("it has at most {most} KiB"), || self.memory_kib() <= most);
    }

    /// The sum of a metric's values.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").expect("it answers");
        let values = page.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends it as a kubelet would; it must do so in order, without ever having panicked, and with every line of its
    /// access log written.
    pub(crate) fn end(mut self) -> AccessLog {
        assert_eq!(
            self.metric("portolan_access_log_dropped_total"),
            0.0,
            "lines of the access log were dropped"
        );
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let log = self.log.take().unwrap().join().unwrap();
        let said = self.said.take().unwrap().join().unwrap();
        assert!(self.child.wait().unwrap().success(), "it did not end in order: {said}");
        assert!(!said.contains("panicked"), "it panicked: {said}");
        log
    }

    fn page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.status).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_log(lines: impl BufRead) -> AccessLog {
    let mut log = AccessLog::new();
    for line in lines.lines() {
        let line = line.unwrap();
        let line: Line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        log.entry(line.client.clone()).or_default().push(line);
    }
    log
}

/// Waits for a condition.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it is still not so that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

impl Service {
    pub(crate) fn new(name: &str, hosts: &str, endpoint: SocketAddr) -> Self {
        Self { name: name.to_owned(), hosts: hosts.to_owned(), endpoints: vec![endpoint] }
    }

    fn manifests(&self) -> String {
        let Self { name, hosts, endpoints } = self;
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  annotations:\n    \
             portolan.dev/expose: \"true\"\n    portolan.dev/host: \"{hosts}\"\n    \
             portolan.dev/outlier-failures: \"0\"\nspec:\n  ports:\n  - {{name: http, port: 80}}\n"
        );
        for (number, endpoint) in endpoints.iter().enumerate() {
            text += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{number}\n  namespace: \
                 default\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports:\n- {{name: http, \
                 port: {}}}\nendpoints:\n- addresses: [{}]\n",
                endpoint.port(),
                endpoint.ip()
            );
        }
        text
    }
}
