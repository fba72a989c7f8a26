//! The upstream's switches and its ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use portolan_loadtest::load::{FailureKind, Load, Pace, Report};
use portolan_loadtest::upstream::{Mode, RunningUpstream, Upstream};

fn ask(address: SocketAddr, target: &str) -> Report {
    let load = Load { pace: Pace::Closed, connections: 1, count: Some(20), ..Load::to(address, target) };
    Load { timeout: Duration::from_millis(500), ..load }.start().unwrap().wait().unwrap()
}

fn answer(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = [0; 4096];
    let mut seen = String::new();
    while !seen.ends_with('\n') || !seen.contains("\r\n\r\n") {
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "closed after {seen:?}");
        seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    seen
}

#[test]
fn each_mode_of_failing_is_seen_as_such() {
    let upstream = Upstream::named("a").start().unwrap();
    for (mode, kind, reason) in [
        (Mode::Status(502), FailureKind::Status, "502"),
        (Mode::Reset, FailureKind::Reset, "reset"),
        (Mode::CutBody, FailureKind::MidBody, ""),
    ] {
        upstream.switches().set_failures(1.0, mode);
        let report = ask(upstream.address(), "/");
        assert_eq!(report.failed_by_kind.get(&kind), Some(&20), "{mode:?}: {report}");
        assert!(report.failures.iter().all(|failure| failure.reason.contains(reason)), "{mode:?}: {report}");
    }
    upstream.switches().set_failures(0.5, Mode::Status(500));
    let report = ask(upstream.address(), "/");
    assert!(report.failed > 0 && report.answered > 0, "half of them: {report}");
}

#[test]
fn healthz_is_a_switch_of_its_own() {
    let upstream = Upstream::named("a").start().unwrap();
    assert_eq!(ask(upstream.address(), "/healthz").failed, 0);
    upstream.switches().set_healthy(false);
    assert_eq!(ask(upstream.address(), "/healthz").statuses[&503], 20);
    assert_eq!(ask(upstream.address(), "/").failed, 0);
}

#[test]
fn an_answer_is_one_write_with_the_name() {
    let upstream = Upstream::named("orders-1").start().unwrap();
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).unwrap();
    let seen = std::str::from_utf8(&bytes[..count]).unwrap();
    assert!(seen.contains("x-upstream: orders-1"), "{seen}");
    assert!(
        seen.ends_with("{\"upstream\":\"orders-1\",\"version\":\"dev\"}\n"),
        "the whole answer came with one read: {seen}"
    );
}

#[test]
fn the_echo_tells_what_arrived_and_a_put_turns_switches() {
    let upstream = Upstream::named("a").start().unwrap();
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    let seen =
        answer(&mut stream, "POST /x?echo HTTP/1.1\r\nhost: h\r\nx-one: 1\r\ncontent-length: 3\r\n\r\nabc");
    let echo: serde_json::Value = serde_json::from_str(seen.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["path"], "/x");
    assert_eq!(echo["target"], "/x?echo");
    assert_eq!(echo["body_bytes"], 3);
    assert!(echo["headers"].as_array().unwrap().contains(&serde_json::json!(["x-one", "1"])), "{echo}");

    let turned = answer(&mut stream, "PUT /switches?mode=503&failures=100% HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(turned.starts_with("HTTP/1.1 200"), "{turned}");
    let failed = answer(&mut stream, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(failed.starts_with("HTTP/1.1 503"), "{failed}");
    let refused = answer(&mut stream, "PUT /switches?speed=1 HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("speed=1"), "{refused}");
}

#[test]
fn a_kill_closes_everything_at_once() {
    let upstream = Upstream::named("a").start().unwrap();
    let address = upstream.address();
    upstream.switches().set_failures(1.0, Mode::Hang);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    while upstream.switches().received() == 0 {
        std::thread::yield_now();
    }
    upstream.kill();
    assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)), "no answer");
    TcpListener::bind(address).expect("the port is free");
}

#[test]
fn finishing_answers_what_is_under_way() {
    let upstream = Upstream::named("a").start().unwrap();
    upstream.switches().set_latency(Duration::from_millis(200));
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    let mut idle = TcpStream::connect(upstream.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    while upstream.switches().received() == 0 {
        std::thread::yield_now();
    }
    upstream.finish();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).unwrap();
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    assert!(seen.contains("connection: close"), "{seen}");
    assert_eq!(idle.read(&mut [0; 64]).unwrap(), 0, "the idle connection is closed in order");
}

/// What comes back to the end of the connection; the last request must ask for that end.
fn all(upstream: &RunningUpstream, request: &[u8], piece: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for bytes in request.chunks(piece) {
        stream.write_all(bytes).unwrap();
    }
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).unwrap();
    seen
}

#[test]
fn requests_are_told_apart_however_they_arrive() {
    let upstream = Upstream::named("a").start().unwrap();
    let requests = "GET /b/1 HTTP/1.1\r\nhost: a\r\n\r\n\
        POST /?echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
        POST /?echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n\
        HEAD /b/100 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    for piece in [1, 7, requests.len()] {
        let seen = String::from_utf8(all(&upstream, requests.as_bytes(), piece)).unwrap();
        assert_eq!(seen.matches("HTTP/1.1 200 OK\r\n").count(), 4, "in pieces of {piece}: {seen}");
        assert!(seen.contains("\"body_bytes\":5") && seen.contains("\"body_bytes\":7"), "{seen}");
        assert!(
            seen.contains("content-length: 100\r\n") && seen.ends_with("connection: close\r\n\r\n"),
            "{seen}"
        );
    }
}

#[test]
fn answers_have_the_size_that_is_asked_for() {
    let upstream = Upstream::named("a").start().unwrap();
    for (target, length) in [
        ("/b/1k", 1 << 10),
        ("/orders/b/64k", 64 << 10),
        ("/b/3m", 3 << 20),
        ("/?body=5000", 5000),
        ("/b/0", 0),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let seen = all(&upstream, request.as_bytes(), request.len());
        let head = seen.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(seen.len() - head, length, "{target}");
        assert!(String::from_utf8_lossy(&seen[..head]).contains(&format!("content-length: {length}\r\n")));
    }
}

#[test]
fn what_is_no_request_is_refused_and_a_large_body_is_waited_for() {
    let upstream = Upstream::named("a").start().unwrap();
    assert!(all(&upstream, b"nonsense\r\n\r\n", 100).starts_with(b"HTTP/1.1 400 "));
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream
        .write_all(
            b"POST /?echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n",
        )
        .unwrap();
    let mut bytes = [0; 64];
    let count = stream.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&vec![b'.'; 1_000_000]).unwrap();
    assert!(answer(&mut stream, "").contains("\"body_bytes\":1000000"));
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let upstream = Upstream::named("a").start().unwrap();
    upstream.switches().set_failures(1.0, Mode::Hang);
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    while upstream.switches().received() == 0 {
        std::thread::yield_now();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap(), 0, "closed without an answer");
}
