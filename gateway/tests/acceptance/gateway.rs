//! The `portolan` binary on a folder of manifests.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portolan_loadtest::upstream::RunningUpstream;
use tempfile::TempDir;

/// A running gateway that serves one folder. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    edge: SocketAddr,
    folder: TempDir,
}

impl Gateway {
    /// A gateway of two workers that serves the Service `shop/orders` with these upstreams; it is ready.
    pub(crate) fn start(annotations: &[(&str, &str)], upstreams: &[RunningUpstream]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("orders.yaml"), manifests(annotations, upstreams)).unwrap();
        let [edge, cluster, status, admin] = free_addresses();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        command.arg("run").arg("--files").arg(folder.path());
        command.args([
            "--workers",
            "2",
            "--default-namespace",
            "shop",
            "--access-log",
            "off",
            "--log",
            "warn",
        ]);
        for (flag, address) in
            [("--listen", edge), ("--listen-cluster", cluster), ("--status", status), ("--admin", admin)]
        {
            command.arg(flag).arg(address.to_string());
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut gateway = Self { child, edge, folder };
        gateway.wait_until_ready(status);
        gateway
    }

    /// Where callers from outside ask.
    pub(crate) fn edge(&self) -> SocketAddr {
        self.edge
    }

    /// Nobody tells when another process becomes ready: it is asked until it is.
    fn wait_until_ready(&mut self, status: SocketAddr) {
        for _ in 0..600 {
            if let Some(exit) = self.child.try_wait().unwrap() {
                panic!("the gateway has ended by itself: {exit}; it served {}", self.folder.path().display());
            }
            if is_ready(status) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the gateway was not ready after 30 s");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_ok();
        let _reaped = self.child.wait().is_ok();
    }
}

fn is_ready(status: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(status)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: status\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Addresses that were free just now, each another.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// The Service, and one slice for each upstream: their ports differ.
fn manifests(annotations: &[(&str, &str)], upstreams: &[RunningUpstream]) -> String {
    let mut text =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: orders\n  namespace: shop\n  annotations:\n    \
                    portolan.dev/expose: \"true\"\n"
            .to_owned();
    for (key, value) in annotations {
        writeln!(text, "    {key}: {value:?}").unwrap();
    }
    text.push_str("spec:\n  ports:\n  - {name: http, port: 80}\n");
    for (number, upstream) in upstreams.iter().enumerate() {
        let (ip, port) = (upstream.address().ip(), upstream.address().port());
        write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: orders-{number}\n  \
             namespace: shop\n  labels: {{kubernetes.io/service-name: orders}}\naddressType: IPv4\nports:\n\
             - {{name: http, port: {port}}}\nendpoints:\n- addresses: [\"{ip}\"]\n"
        )
        .unwrap();
    }
    text
}
