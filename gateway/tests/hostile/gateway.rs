//! A running `portolan run --files DIR` with one worker, so that all who call share its connections to the endpoints.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Gateway {
    child: Child,
    pub(crate) edge: SocketAddr,
    status: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Gateway {
    /// Serves these Services, each with its hosts and endpoints, and is ready.
    pub(crate) fn start(services: &[(&str, &str, &[SocketAddr])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, hosts, endpoints) in services {
            std::fs::write(folder.path().join(format!("{name}.yaml")), manifest(name, hosts, endpoints))
                .unwrap();
        }
        let [edge, cluster, admin, status] = [free(), free(), free(), free()];
        let child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .env_clear()
            .args(["run", "--files", folder.path().to_str().unwrap(), "--all-namespaces", "--workers", "1"])
            .args(["--default-namespace", "default", "--upstream-idle-timeout", "1s", "--access-log", "off"])
            .args(["--listen", &edge.to_string(), "--listen-cluster", &cluster.to_string()])
            .args(["--admin", &admin.to_string(), "--status", &status.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary under test was built");
        let gateway = Self { child, edge, status, _folder: folder };
        until("it is ready", || gateway.page("/readyz").is_some_and(|page| page.starts_with("HTTP/1.1 200")));
        gateway
    }

    /// Files that the process has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the gateway is alive").count()
    }

    /// It serves, nothing in it panicked, and it closes what it opened for its callers.
    pub(crate) fn is_well(&self, files_before: usize) {
        until("its files are closed", || self.open_files() <= files_before + 2);
        let metrics = self.page("/metrics").expect("it answers");
        let panics = metrics.lines().find(|line| line.contains("panic") && !line.starts_with('#'));
        assert!(panics.is_none_or(|line| line.ends_with(" 0")), "{panics:?}");
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

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it is still not so that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

fn manifest(service: &str, hosts: &str, endpoints: &[SocketAddr]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {service}\n  namespace: default\n  annotations:\n    \
         portolan.dev/expose: \"true\"\n    portolan.dev/host: \"{hosts}\"\n    portolan.dev/response-timeout: \
         1s\n    portolan.dev/outlier-failures: \"0\"\nspec:\n  ports:\n  - {{name: http, port: 80}}\n"
    );
    for (number, endpoint) in endpoints.iter().enumerate() {
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{number}\n  namespace: \
             default\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports:\n- {{name: http, \
             port: {}}}\nendpoints:\n- addresses: [{}]\n",
            endpoint.port(),
            endpoint.ip()
        );
    }
    text
}
