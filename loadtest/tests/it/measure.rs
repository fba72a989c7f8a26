//! The promises of the lean generator.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use portolan_loadtest::load::FailureKind;
use portolan_loadtest::measure::{Measured, Plan, Protocol, Shot, Target, Trust};

use crate::scripted::{self, Wire};
use crate::secure::{self, Secure};

const H2: Protocol = Protocol::Http2 { streams: 4 };

/// So many requests on one connection in the closed loop, with more time than any of them takes.
fn plan(url: &str, protocol: Protocol, trust: &Trust, count: u64) -> Plan {
    let mut plan = Plan::to(&Target::parse(url).unwrap(), protocol, trust).unwrap();
    plan.connections = 1;
    plan.duration = None;
    plan.count = Some(count);
    plan.timeout = Duration::from_secs(20);
    plan
}

fn http1(address: SocketAddr, count: u64) -> Plan {
    plan(&format!("http://{address}/"), Protocol::Http1, &Trust::Anyone, count)
}

fn run(plan: Plan) -> Measured {
    plan.start().unwrap().wait().unwrap()
}

/// A server whose connections each do this, and how many there were.
fn counted(script: impl Fn(Wire) + Send + Clone + 'static) -> (SocketAddr, Arc<AtomicU64>) {
    let accepted = Arc::new(AtomicU64::new(0));
    let count = accepted.clone();
    let address = scripted::serve(move |wire| {
        count.fetch_add(1, Ordering::Relaxed);
        script(wire);
    });
    (address, accepted)
}

#[track_caller]
fn assert_all_answered(measured: &Measured, count: u64) {
    assert_eq!((measured.requests, measured.answered, measured.failed), (count, count, 0), "{measured}");
    assert_eq!(measured.statuses.get(&200), Some(&count), "{measured}");
}

#[track_caller]
fn assert_all_failed(measured: &Measured, count: u64, kind: FailureKind, reason: &str) {
    assert_eq!((measured.requests, measured.failed), (count, count), "{measured}");
    assert_eq!(measured.failed_by_kind.get(&kind), Some(&count), "{measured}");
    for trouble in &measured.troubles {
        assert!(trouble.reason.contains(reason), "{measured}");
    }
}

/// The first answer takes half a second, all others nothing.
fn stalling() -> SocketAddr {
    scripted::serve(|mut wire| {
        wire.request();
        std::thread::sleep(Duration::from_millis(500));
        wire.ok();
        while wire.request() {
            wire.ok();
        }
    })
}

#[test]
fn the_open_loop_counts_from_the_due_time() {
    // 100 a second: those due in the half second wait too, the one due after 250 ms for 250 ms.
    let mut plan = http1(stalling(), 50);
    plan.rate = Some(100.0);
    let measured = run(plan);
    assert_all_answered(&measured, 50);
    assert!(measured.latency_us.max >= 490_000, "{measured}");
    assert!(measured.latency_us.p50 >= 240_000, "{measured}");
    assert!(measured.queued >= 48, "{measured}");
}

#[test]
fn the_open_loop_sends_what_is_due_and_counts_what_is_due_after_the_warm_up() {
    let address = secure::clear_http2().address;
    let mut plan = plan(&format!("http://{address}/"), H2, &Trust::Anyone, 1000);
    plan.rate = Some(100.0);
    plan.warm_up = Duration::from_millis(250);
    plan.duration = Some(Duration::from_millis(200));
    assert_all_answered(&run(plan.clone()), 20);
    plan.duration = None;
    plan.count = Some(50);
    assert_all_answered(&run(plan), 25);
}

#[test]
fn threads_share_the_connections_and_the_requests() {
    let (address, accepted) = counted(|mut wire| {
        while wire.request() {
            wire.ok();
        }
    });
    let mut plan = http1(address, 51);
    (plan.connections, plan.threads) = (3, 2);
    assert_all_answered(&run(plan.clone()), 51);
    assert_eq!(accepted.load(Ordering::Relaxed), 3);
    plan.rate = Some(500.0);
    assert_all_answered(&run(plan), 51);
}

#[test]
fn a_run_without_an_end_ends_when_it_is_stopped() {
    let (tell, told) = std::sync::mpsc::channel();
    let address = scripted::serve(move |mut wire| {
        while wire.request() && tell.send(()).is_ok() {
            wire.ok();
        }
    });
    let mut plan = http1(address, 0);
    plan.count = None;
    let running = plan.start().unwrap();
    assert!((0..20).all(|_| told.recv().is_ok()));
    assert!(!running.is_over());
    running.stop();
    let measured = running.wait().unwrap();
    assert!(measured.answered >= 19 && measured.failed == 0, "{measured}");
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is() {
    type Change = fn(&mut Plan);
    let changes: [(Change, &str); 5] = [
        (|plan| plan.rate = Some(0.0), "a rate of 0"),
        (|plan| plan.connections = 0, "0 connections for 1 threads"),
        (|plan| plan.new_connections = 1.5, "not between 0 and 1"),
        (|plan| plan.requests.clear(), "no usable weights"),
        (|plan| plan.requests[0].weight = f64::NAN, "no usable weights"),
    ];
    for (change, reason) in changes {
        let mut plan = http1(SocketAddr::from(([127, 0, 0, 1], 1)), 1);
        change(&mut plan);
        let error = plan.start().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    for url in ["localhost", "ftp://localhost/", "http:///"] {
        assert!(Target::parse(url).is_err(), "{url}");
    }
}

#[test]
fn the_closed_loop_counts_from_the_sending() {
    let measured = run(http1(stalling(), 50));
    assert_all_answered(&measured, 50);
    assert!(measured.latency_us.max >= 490_000, "{measured}");
    assert!(measured.latency_us.p50 < measured.latency_us.max / 2, "only one has waited: {measured}");
    assert_eq!(measured.queued, 0);
}

#[test]
fn what_ends_after_the_time_of_the_closed_loop_is_counted_apart() {
    let mut plan = http1(stalling(), 1);
    plan.duration = Some(Duration::from_millis(450));
    let measured = run(plan);
    assert_eq!((measured.requests, measured.answered_after_end), (0, 1), "{measured}");
}

#[test]
fn connections_are_kept() {
    let (address, accepted) = counted(|mut wire| {
        while wire.request() {
            wire.ok();
        }
    });
    let mut plan = http1(address, 200);
    plan.connections = 4;
    let measured = run(plan);
    assert_all_answered(&measured, 200);
    assert_eq!((accepted.load(Ordering::Relaxed), measured.connections_opened), (4, 0), "{measured}");
}

#[test]
fn each_request_has_a_connection_of_its_own_if_asked() {
    let (address, accepted) = counted(|mut wire| {
        assert!(wire.request_text().contains("\r\nconnection: close\r\n"));
        wire.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    });
    let mut plan = http1(address, 40);
    plan.new_connections = 1.0;
    let measured = run(plan);
    assert_all_answered(&measured, 40);
    assert_eq!((accepted.load(Ordering::Relaxed), measured.connections_opened), (40, 40), "{measured}");
}

#[test]
fn an_answer_does_not_wait_until_the_request_was_taken() {
    // The server never reads the body, which is more than the sockets hold.
    let (address, accepted) = counted(|mut wire| {
        wire.request_text();
        wire.write("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n");
        loop {
            std::thread::park();
        }
    });
    let mut plan = http1(address, 3);
    let body = Bytes::from(vec![b'.'; 32 << 20]);
    plan.requests = vec![Shot { method: Method::POST, body, ..Shot::get("/") }];
    assert_all_failed(&run(plan), 3, FailureKind::Status, "413");
    assert_eq!(accepted.load(Ordering::Relaxed), 3, "what is left of a body is not the next request");
}

#[test]
fn each_failure_has_its_kind() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert_all_failed(&run(http1(free, 5)), 5, FailureKind::ConnectRefused, "refused");

    let answering = |text: &'static str| {
        scripted::serve(move |mut wire| {
            wire.request();
            wire.write(text);
        })
    };
    for (text, kind, reason) in [
        ("", FailureKind::Reset, "closed before the answer"),
        ("HTTP/1.1 200 O", FailureKind::MidBody, "closed before the answer was complete"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1234", FailureKind::MidBody, "was complete"),
        ("SSH-2.0-OpenSSH\r\n\r\n", FailureKind::Protocol, "not HTTP/1.1"),
        ("HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", FailureKind::Status, "503"),
    ] {
        assert_all_failed(&run(http1(answering(text), 5)), 5, kind, reason);
    }
    let reset = scripted::serve(|mut wire| {
        wire.request();
        wire.reset();
    });
    assert_all_failed(&run(http1(reset, 5)), 5, FailureKind::Reset, "reset");
}

#[test]
fn what_takes_too_long_says_how_far_it_came() {
    let stuck_after = |text: &'static str| {
        let address = scripted::serve(move |mut wire| {
            wire.request();
            wire.write(text);
            wire.wait_for_close();
        });
        let mut plan = http1(address, 2);
        plan.connections = 2;
        plan.timeout = Duration::from_secs(2);
        plan.start().unwrap()
    };
    let (vain, slow) = ((FailureKind::Timeout, "no answer"), (FailureKind::Stalled, "did not end"));
    let running = [
        (stuck_after(""), vain),
        (stuck_after("HTTP/1.1 100 Continue\r\n\r\n"), vain),
        (stuck_after("HTTP/1.1 200 O"), slow),
        (stuck_after("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1234"), slow),
    ];
    for (running, (kind, reason)) in running {
        assert_all_failed(&running.wait().unwrap(), 2, kind, reason);
    }
}

#[test]
fn connections_that_cannot_be_opened_do_not_eat_the_run() {
    // It accepts, and never answers the handshake: of each of 20 connections.
    let address = scripted::serve(|mut wire| wire.wait_for_close());
    let mut plan = plan(&format!("https://{address}/"), Protocol::Http1, &Trust::Anyone, 20);
    plan.connections = 20;
    plan.duration = Some(Duration::from_secs(60));
    plan.timeout = Duration::from_secs(2);
    let measured = run(plan);
    assert_all_failed(&measured, 20, FailureKind::ConnectTimeout, "no connection in time");
    assert!(measured.seconds < 15.0, "one after the other they take 20 s and more: {measured}");
}

#[test]
fn nothing_measured_is_an_error_on_the_command_line() {
    let address = stalling();
    let output = loadtest(&["run", &format!("http://{address}/"), "--count", "1", "--warm-up", "1m"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("no request ended in the time that counts"), "{said}");
}

#[test]
fn every_protocol_is_spoken_with_and_without_tls() {
    let secure = secure::over_tls(&[b"h2", b"http/1.1"]);
    let url = secure.url("/");
    let trusted = Trust::SignedBy(secure.pem.into_bytes());
    for protocol in [Protocol::Http1, H2] {
        for trust in [&trusted, &Trust::Anyone] {
            assert_all_answered(&run(plan(&url, protocol, trust, 40)), 40);
        }
    }
    let clear = secure::clear_http2();
    let url = format!("http://{}/", clear.address);
    assert_all_answered(&run(plan(&url, H2, &Trust::Anyone, 40)), 40);
}

#[test]
fn a_server_over_tls_must_be_trusted_and_speak_the_protocol() {
    let secure = secure::over_tls(&[b"h2", b"http/1.1"]);
    let other = secure::over_tls(&[b"h2"]).pem.into_bytes();
    let measured = run(plan(&secure.url("/"), Protocol::Http1, &Trust::SignedBy(other), 3));
    assert_all_failed(&measured, 3, FailureKind::ConnectFailed, "certificate");

    let without = secure::over_tls(&[]);
    let measured = run(plan(&without.url("/"), H2, &Trust::Anyone, 3));
    assert_all_failed(&measured, 3, FailureKind::Protocol, "does not speak h2");
}

#[test]
fn a_stream_of_http2_may_fail_alone_or_with_its_connection() {
    let clear = secure::clear_http2();
    let url = |path: &str| format!("http://{}{path}", clear.address);
    let measured = run(plan(&url("/reset"), H2, &Trust::Anyone, 12));
    assert_all_failed(&measured, 12, FailureKind::Reset, "internal error");
    assert_eq!(measured.connections_opened, 0, "the connection is still good: {measured}");

    let measured = run(plan(&url("/gone"), Protocol::Http2 { streams: 1 }, &Trust::Anyone, 5));
    assert_eq!((measured.requests, measured.failed), (5, 5), "{measured}");
    assert_eq!(
        measured.connections_opened, 4,
        "each ended a connection, and the next opened one: {measured}"
    );
}

#[test]
fn on_the_command_line_it_prints_json_and_fails_when_a_request_does() {
    let secure = secure::over_tls(&[b"h2", b"http/1.1"]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &secure.pem).unwrap();
    let counted = ["--count", "40", "--duration", "1m", "--warm-up", "0s", "--connections", "2", "--json"];
    let ask = |url: &str, more: &[&str]| loadtest(&[&["run", url], more, &counted].concat());

    let ca = ca.to_str().unwrap();
    for (protocol, more) in [
        ("http/1.1", ["--ca", ca, "--closed"].as_slice()),
        ("http/1.1", ["--insecure", "--new-connections-only"].as_slice()),
        ("h2", ["--ca", ca, "--h2", "--streams", "8", "--rate", "1000"].as_slice()),
    ] {
        let output = ask(&secure.url("/"), more);
        assert!(output.status.success(), "{more:?}: {output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["answered"], &report["protocol"]), (&40.into(), &protocol.into()), "{more:?}");
        assert!(report["latency_us"]["p99_9"].as_u64().unwrap() > 0, "{report}");
    }
    let output = ask(&secure.url("/reset"), &["--h2", "--insecure"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed_by_kind"]["reset"], 40, "{report}");

    let said = String::from_utf8(ask(&secure.url("/"), &[]).stderr).unwrap();
    assert!(said.contains("--ca FILE") && said.contains("--insecure"), "{said}");
}

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan-loadtest")).args(arguments).output().unwrap()
}

impl Secure {
    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }
}
