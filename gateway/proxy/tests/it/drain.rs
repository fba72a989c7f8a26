//! How the proxy goes away.

use std::future::pending;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::harness::{Gateway, Upstream, Wire, get, ok, soon};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn during_the_delay_everything_goes_on() {
    let mut gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let edge = gateway.edge;
    let draining = tokio::spawn(gateway.take_proxy().drain(Duration::from_millis(600), LONG, pending()));
    let mut client = Wire::connect(edge).await;
    let answer = client.ask(&get("/orders/")).await;
    assert_eq!((answer.status(), answer.field("connection")), (200, None));
    drop(client);
    let report = soon(draining).await.unwrap();
    assert_eq!((report.in_flight, report.aborted), (0, 0));
    assert!(report.took >= Duration::from_millis(600) && report.took < LONG / 4, "{report:?}");
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_closes_its_connection() {
    let upstream = Upstream::new().await;
    let mut gateway = Gateway::orders(&[upstream.address]).await;
    let edge = gateway.edge;
    let mut client = Wire::connect(edge).await;
    client.write(&get("/orders/")).await;
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    let draining = tokio::spawn(gateway.take_proxy().drain(Duration::ZERO, LONG, pending()));
    soon(async {
        while tokio::net::TcpStream::connect(edge).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    endpoint.write(&ok("done", "")).await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.text(), answer.field("connection")), ("done", Some("close")));
    assert!(client.is_closed().await);
    let report = soon(draining).await.unwrap();
    assert_eq!((report.in_flight, report.aborted), (1, 0));
}

/// A connection that was in use a moment ago is likely to be used again just now: its next request is served.
#[tokio::test]
async fn a_connection_used_lately_gets_its_next_request() {
    let mut gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let edge = gateway.edge;
    let mut client = Wire::connect(edge).await;
    assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
    let draining = tokio::spawn(gateway.take_proxy().drain(Duration::ZERO, LONG, pending()));
    soon(async {
        while tokio::net::TcpStream::connect(edge).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = client.ask(&get("/orders/")).await;
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert_eq!(soon(draining).await.unwrap().aborted, 0);
}

#[tokio::test]
async fn connections_idle_for_long_do_not_hold_it_up() {
    let mut gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Wire::connect(gateway.edge).await;
        assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
        clients.push(client);
    }
    // The clock of the workers is the real one, so the five seconds that make a connection idle are spent here.
    let delay = Duration::from_millis(5200);
    let report = soon(gateway.take_proxy().drain(delay, LONG, pending())).await;
    assert_eq!((report.connections, report.aborted), (5, 0));
    assert!(report.took < LONG / 4, "{report:?}");
    for client in &mut clients {
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let upstream = Upstream::new().await;
    let mut gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    let proxy = gateway.take_proxy();
    let report = soon(proxy.drain(Duration::ZERO, Duration::from_millis(200), pending())).await;
    assert_eq!((report.in_flight, report.aborted), (1, 1));
    assert!(client.next_message().await.is_none_or(|answer| answer.status() == 503));
    assert!(endpoint.is_closed().await);
    gateway.logged(|line| line["reason"] == "draining").await;
}

#[tokio::test]
async fn a_second_signal_ends_it_within_two_seconds() {
    for delay in [Duration::ZERO, LONG] {
        let upstream = Upstream::new().await;
        let mut gateway = Gateway::orders(&[upstream.address]).await;
        let (_client, _endpoint) = gateway.asked(&upstream, "/orders/").await;
        let (hurry, hurried) = oneshot::channel::<()>();
        let hurried = async { hurried.await.unwrap() };
        let draining = tokio::spawn(gateway.take_proxy().drain(delay, LONG, hurried));
        let pressed = Instant::now();
        hurry.send(()).unwrap();
        let report = soon(draining).await.unwrap();
        assert!(pressed.elapsed() < Duration::from_secs(2), "{:?}", pressed.elapsed());
        assert_eq!(report.aborted, 1);
    }
}

/// Connections that the kernel has taken, but the worker has not, are served before the socket closes.
#[tokio::test]
async fn the_queue_is_emptied() {
    let mut gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let edge = gateway.edge;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Wire::connect(edge).await);
    }
    let draining = tokio::spawn(gateway.take_proxy().drain(Duration::ZERO, LONG, pending()));
    for client in &mut clients {
        let answer = client.ask(&get("/orders/")).await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(soon(draining).await.unwrap().aborted, 0);
}
