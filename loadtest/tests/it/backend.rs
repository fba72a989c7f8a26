//! The upstream as a process, and what SIGTERM does to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Backend {
    child: Child,
    address: SocketAddr,
}

impl Backend {
    fn start(on_term: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan-loadtest"))
            .args([
                "backend",
                "--listen",
                "127.0.0.1:0",
                "--name",
                "b",
                "--latency",
                "200ms",
                "--on-term",
                on_term,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("b listens on ").unwrap().parse().unwrap();
        Self { child, address }
    }

    /// Sends a request, then SIGTERM; gives what came back before the connection ended.
    fn terminate_under_a_request(&mut self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // A first answer, so that the connection is certainly accepted.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut bytes = [0; 1024];
        assert!(stream.read(&mut bytes).unwrap() > 0);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut seen = String::new();
        // A reset is an end as well.
        let _end = stream.read_to_string(&mut seen).is_ok();
        assert!(self.child.wait().unwrap().success());
        seen
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It has exited, unless the test failed.
        let _exited = self.child.kill().is_ok();
        let _exited = self.child.wait().is_ok();
    }
}

#[test]
fn it_exits_at_once() {
    assert_eq!(Backend::start("exit").terminate_under_a_request(), "");
}

#[test]
fn it_finishes_what_is_under_way() {
    let seen = Backend::start("finish").terminate_under_a_request();
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen:?}");
}

#[test]
fn it_serves_on_for_a_while() {
    let seen = Backend::start("delay=400ms").terminate_under_a_request();
    assert!(seen.starts_with("HTTP/1.1 200"), "a request of 200 ms ends within the delay: {seen:?}");
    assert_eq!(
        Backend::start("delay=50ms").terminate_under_a_request(),
        "",
        "and one that takes longer does not"
    );
}

#[test]
fn run_prints_json_and_fails_when_a_request_does() {
    let mut backend = Backend::start("exit");
    let run = |url: String| {
        Command::new(env!("CARGO_BIN_EXE_portolan-loadtest"))
            .args(["run", "--url", &url, "--rate", "200", "--connections", "4", "--new-connections", "20%"])
            .args(["--post", "10%", "--count", "20", "--json"])
            .output()
            .unwrap()
    };
    let output = run(format!("http://{}/", backend.address));
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["answered"], 20);
    assert_eq!(report["upstreams"]["b"], 20);
    assert!(report["latency_ms"]["p50"].as_f64().unwrap() >= 200.0);
    backend.child.kill().unwrap();
    backend.child.wait().unwrap();
    let output = run(format!("http://{}/", backend.address));
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed_by_kind"]["connect"], 20);
    assert_eq!(report["failures"][0]["kind"], "connect");
}
