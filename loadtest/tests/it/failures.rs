//! Each kind of failure, from a server that does just that.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use portolan_loadtest::load::{FailureKind, Load, Pace, Report};

use crate::scripted;

/// Ten requests, one after the other's due time, on one connection, with more time than any of them takes.
fn ten(address: SocketAddr) -> Report {
    let load = Load {
        pace: Pace::Open { rate: 200.0 },
        connections: 1,
        count: Some(10),
        timeout: Duration::from_secs(20),
        ..Load::to(address, "/")
    };
    load.start().unwrap().wait().unwrap()
}

/// Ten requests that run out of time, each on a connection of its own: none waits for another, and each has long enough
/// to come as far as it can.
fn ten_in_vain(address: SocketAddr) -> Report {
    let load = Load {
        pace: Pace::Open { rate: 200.0 },
        connections: 10,
        count: Some(10),
        timeout: Duration::from_secs(2),
        ..Load::to(address, "/")
    };
    load.start().unwrap().wait().unwrap()
}

#[track_caller]
fn assert_all_failed(report: &Report, kind: FailureKind, reason: &str) {
    assert_eq!(report.failed_by_kind.get(&kind), Some(&10), "{report}");
    assert_eq!((report.requests, report.answered, report.failed), (10, 0, 10), "{report}");
    assert_eq!(report.failures.len(), 10);
    for failure in &report.failures {
        assert!(failure.reason.contains(reason), "{failure}");
        assert_eq!(failure.method, "GET");
        assert_eq!(failure.local_port.is_some(), kind != FailureKind::ConnectRefused, "{failure}");
        assert!(failure.at >= failure.due, "{failure}");
    }
    assert_eq!(report.idempotent.failed_by_kind[&kind], 10, "{report}");
    assert_eq!(report.not_idempotent.requests, 0);
    assert_eq!((report.spans.len(), report.spans[0].requests), (1, 10), "{report}");
    assert_eq!(report.bad_for(), Duration::from_millis(45), "from the first due time to the last");
    let last = report.failures.iter().map(|failure| failure.due).max().unwrap();
    assert_eq!(last, Duration::from_millis(45), "the tenth is due 9 × 5 ms after the start");
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert_all_failed(&ten(free), FailureKind::ConnectRefused, "refused");
}

#[test]
fn the_connection_is_reset_after_the_request() {
    let report = ten(scripted::serve(|mut wire| {
        wire.request();
        wire.reset();
    }));
    assert_all_failed(&report, FailureKind::Reset, "reset");
}

#[test]
fn the_connection_is_closed_after_the_request() {
    let report = ten(scripted::serve(|mut wire| {
        wire.request();
    }));
    assert_all_failed(&report, FailureKind::Reset, "closed before the answer");
}

#[test]
fn the_connection_is_closed_within_the_head() {
    let report = ten(scripted::serve(|mut wire| {
        wire.request();
        wire.write("HTTP/1.1 200 OK\r\ncontent-le");
    }));
    assert_all_failed(&report, FailureKind::MidBody, "closed before the answer");
    assert_eq!(report.retriable, 0, "its answer had begun");
}

#[test]
fn a_new_connection_is_closed_before_the_request() {
    // Whether the request is written before the close is seen is the kernel's choice; it has failed either way.
    let report = ten(scripted::serve(drop));
    assert_eq!(report.failed, 10, "{report}");
    assert_eq!(report.failed_by_kind.get(&FailureKind::Reset), Some(&10), "{report}");
}

#[test]
fn no_answer_comes() {
    let report = ten_in_vain(scripted::serve(|mut wire| wire.wait_for_close()));
    assert_eq!(report.failed_by_kind.get(&FailureKind::Timeout), Some(&10), "{report}");
    assert!(report.failures[0].reason.contains("no answer in time"), "{report}");
}

#[test]
fn the_body_stalls() {
    let report = ten_in_vain(scripted::serve(|mut wire| {
        wire.request();
        wire.write("HTTP/1.1 200 OK\r\nx-upstream: b\r\ncontent-length: 10\r\n\r\nfive.");
        wire.wait_for_close();
    }));
    assert_eq!(report.failed_by_kind.get(&FailureKind::Stalled), Some(&10), "{report}");
    assert!(report.failures[0].reason.contains("did not end in time"), "{report}");
    assert_eq!(report.failures[0].upstream.as_deref(), Some("b"));
}

#[test]
fn the_body_is_cut() {
    let report = ten(scripted::serve(|mut wire| {
        wire.request();
        wire.write("HTTP/1.1 200 OK\r\nx-upstream: b\r\ncontent-length: 10\r\n\r\nfive.");
    }));
    assert_all_failed(&report, FailureKind::MidBody, "closed before the answer was complete");
    assert_eq!(report.failures[0].upstream.as_deref(), Some("b"), "who began to answer is known");
}

#[test]
fn a_chunked_body_is_cut() {
    let report = ten(scripted::serve(|mut wire| {
        wire.request();
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfive.\r\n");
    }));
    assert_all_failed(&report, FailureKind::MidBody, "");
}

#[test]
fn the_status_is_unexpected() {
    let report = ten(scripted::serve(|mut wire| {
        while wire.request() {
            wire.write(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 25\r\n\r\n{\"reason\":\"no_endpoints\"}",
            );
        }
    }));
    assert_all_failed(&report, FailureKind::Status, "503 no_endpoints");
    assert_eq!(report.statuses[&503], 10);
    assert_eq!(report.connections_opened, 0, "the connection is still good: {report}");
}

#[test]
fn the_answer_is_not_http() {
    let report = ten(scripted::serve(|mut wire| {
        wire.request();
        wire.write("SSH-2.0-OpenSSH_9.6\r\n\r\n");
        wire.wait_for_close();
    }));
    assert_all_failed(&report, FailureKind::Protocol, "");
}

#[test]
fn no_connection_comes_in_time() {
    // A queue of one that nobody empties: the kernel drops what comes beyond, and the client's tries go unanswered.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<_> = (0..4)
        .map_while(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
        .collect();
    assert!(waiting.len() < 4, "the queue is full");
    let report = ten_in_vain(address);
    assert_eq!(report.failed_by_kind.get(&FailureKind::ConnectTimeout), Some(&10), "{report}");
}
