//! The upstream as a process, and what SIGTERM does to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

struct Backend {
    child: Child,
    address: SocketAddr,
    lines: BufReader<ChildStdout>,
}

impl Backend {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[("ECHO_LISTEN", "127.0.0.1:0"), ("ECHO_NAME", "b")])
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan-loadtest"))
            .arg("backend")
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let address = listens_on(&mut lines).1;
        Self { child, address, lines }
    }

    /// A backend that takes 200 ms for each answer.
    fn slow(on_term: &str) -> Self {
        Self::start(&["--latency", "200ms", "--on-term", on_term])
    }

    fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What comes back for this request, on a connection of its own, to the end of the connection.
    fn ask(&self, request_line: &str) -> String {
        ask(self.address, request_line)
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
        self.terminate();
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

/// The name and the address on the next line.
fn listens_on(lines: &mut BufReader<ChildStdout>) -> (String, SocketAddr) {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let (name, address) = line.trim().split_once(" listens on ").unwrap();
    (name.to_owned(), address.parse().unwrap())
}

fn ask(address: SocketAddr, request_line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "{request_line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut seen = String::new();
    // A reset is an end as well.
    let _end = stream.read_to_string(&mut seen).is_ok();
    seen
}

#[test]
fn it_exits_at_once() {
    assert_eq!(Backend::slow("exit").terminate_under_a_request(), "");
}

#[test]
fn it_finishes_what_is_under_way() {
    let seen = Backend::slow("finish").terminate_under_a_request();
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen:?}");
}

#[test]
fn it_serves_on_for_a_while() {
    let seen = Backend::slow("delay=400ms").terminate_under_a_request();
    assert!(seen.starts_with("HTTP/1.1 200"), "a request of 200 ms ends within the delay: {seen:?}");
    assert_eq!(
        Backend::slow("delay=50ms").terminate_under_a_request(),
        "",
        "and one that takes longer does not"
    );
    let seen = Backend::slow("delay=50ms,finish").terminate_under_a_request();
    assert!(seen.starts_with("HTTP/1.1 200"), "unless it is to be finished: {seen:?}");
}

#[test]
fn it_ignores_the_signal() {
    let backend = Backend::start(&["--on-term", "ignore"]);
    backend.terminate();
    assert!(backend.ask("GET /").starts_with("HTTP/1.1 200"));
}

#[test]
fn variables_set_what_options_set() {
    let listen = ("ECHO_LISTEN", "127.0.0.1:0,127.0.0.1:0");
    let mut backend = Backend::start_with(&[], &[listen, ("ECHO_VERSION", "v2"), ("ECHO_BODY", "7")]);
    let (name, second) = listens_on(&mut backend.lines);
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name, host_name.trim());
    for address in [backend.address, second] {
        let seen = ask(address, "GET /");
        assert!(seen.contains(&format!("x-upstream: {name}\r\n")), "{seen}");
        assert!(seen.contains("x-version: v2\r\n") && seen.ends_with("\r\n\r\n......."), "{seen}");
        assert!(ask(address, "GET /?echo").contains(&format!("\"local\":\"{address}\"")));
    }
    let flag_wins = Backend::start_with(&["--answer-version", "v3"], &[listen, ("ECHO_VERSION", "v2")]);
    assert!(flag_wins.ask("GET /").contains("x-version: v3"));
}

#[test]
fn it_may_become_ready_later_or_never() {
    let status = |backend: &Backend, path: &str| backend.ask(&format!("GET {path}"))[9..12].to_owned();
    let backend = Backend::start(&["--ready-after", "never"]);
    for (path, expected) in [("/healthz", "503"), ("/readyz", "503"), ("/livez", "200"), ("/", "200")] {
        assert_eq!(status(&backend, path), expected, "{path}");
    }
    backend.ask("PUT /switches?ready=yes");
    assert_eq!(status(&backend, "/healthz"), "200");
    backend.ask("PUT /switches?healthy=no");
    assert_eq!(
        (status(&backend, "/readyz"), status(&backend, "/livez")),
        ("503".to_owned(), "503".to_owned())
    );

    let begin = Instant::now();
    let backend = Backend::start(&["--ready-after", "200ms"]);
    while status(&backend, "/healthz") != "200" {
        assert!(begin.elapsed() < Duration::from_secs(5), "it becomes ready");
    }
    assert!(begin.elapsed() >= Duration::from_millis(200), "and not before its time");
}

#[test]
fn it_crashes_when_asked_or_in_time() {
    let mut backend = Backend::slow("finish");
    let mut under_way = TcpStream::connect(backend.address).unwrap();
    under_way.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(backend.ask("PUT /crash"), "");
    assert_eq!(backend.child.wait().unwrap().code(), Some(1));
    assert!(matches!(under_way.read(&mut [0; 64]), Ok(0) | Err(_)), "no answer to others either");

    let mut backend = Backend::start(&["--crash-after", "50ms"]);
    assert_eq!(backend.child.wait().unwrap().code(), Some(1));
}

#[test]
fn watch_prints_json_and_fails_when_a_request_does() {
    let mut backend = Backend::slow("exit");
    let run = |url: String| {
        Command::new(env!("CARGO_BIN_EXE_portolan-loadtest"))
            .args(["watch", "--url", &url, "--rate", "200", "--connections", "4", "--new-connections", "20%"])
            .args(["--mix", "GET:2,PUT,DELETE,POST", "--count", "40", "--slow-after", "100ms", "--json"])
            .output()
            .unwrap()
    };
    let output = run(format!("http://{}/", backend.address));
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["answered"], 40);
    assert_eq!(report["upstreams"]["b"], 40);
    assert_eq!(report["slow"], 40, "each takes 200 ms");
    let requests = |part: &str| report[part]["requests"].as_u64().unwrap();
    assert_eq!(requests("idempotent") + requests("not_idempotent"), 40);
    assert_eq!(requests("kept_connections") + requests("new_connections"), 40);
    for method in ["GET", "PUT", "DELETE", "POST"] {
        assert!(report["methods"][method]["answered"].as_u64().unwrap() > 0, "{method}");
    }
    assert!(report["latency_ms"]["p50"].as_f64().unwrap() >= 200.0);
    backend.child.kill().unwrap();
    backend.child.wait().unwrap();
    let output = run(format!("http://{}/", backend.address));
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed_by_kind"]["connect_refused"], 40);
    assert_eq!(report["failures"][0]["kind"], "connect_refused");
    assert_eq!(report["spans"][0]["requests"], 40);
    assert_eq!(report["methods"]["POST"]["failed"], report["not_idempotent"]["failed"]);
}
