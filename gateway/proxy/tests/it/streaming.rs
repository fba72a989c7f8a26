//! Bodies flow, and stop when either side stops.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::harness::{Gateway, Setup, Upstream, Wire, get, ok, soon};

#[tokio::test]
async fn events_are_relayed_as_they_come() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/events").await;
    endpoint
        .write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    assert!(client.head().await.is_some(), "the head comes before the first event");
    for number in 0..5 {
        let chunk = format!("9\r\ndata: {number}\n\n\r\n");
        let sent = Instant::now();
        endpoint.write(&chunk).await;
        assert_eq!(client.bytes(chunk.len()).await, chunk.as_bytes());
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_endpoints_work() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    // Before the head of the response.
    let (client, mut endpoint) = gateway.asked(&upstream, "/orders/slow").await;
    drop(client);
    assert!(endpoint.is_closed().await);
    let line = gateway.logged(|line| line["path"] == "/orders/slow").await;
    assert_eq!((&line["reason"], &line["status"]), (&"client_closed".into(), &0.into()));

    // In the middle of the response.
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/stream").await;
    endpoint.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    client.head().await.unwrap();
    client.bytes(7).await;
    drop(client);
    assert!(endpoint.is_closed().await);
    let line = gateway.logged(|line| line["path"] == "/orders/stream").await;
    assert_eq!((&line["reason"], &line["status"]), (&"client_closed".into(), &200.into()));

    // In the middle of the request.
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/upload HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    assert_eq!(endpoint.bytes(4).await, b"half");
    drop(client);
    assert!(endpoint.is_closed().await);
}

/// A reset is noticed though a byte of the client's next request waits unread, or its upload is not wanted just now.
#[tokio::test]
async fn a_reset_behind_unread_bytes_cancels_the_endpoints_work() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&format!("{}G", get("/orders/slow"))).await;
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    let reset = Instant::now();
    client.reset();
    assert!(endpoint.is_closed().await);
    assert!(reset.elapsed() < Duration::from_secs(5), "{:?}", reset.elapsed());
    gateway.logged(|line| line["reason"] == "client_closed").await;

    // In a blocked upload.
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await;
    let _blocked = upstream.accept().await;
    soon(pour(&mut client.stream)).await;
    client.reset();
    gateway.metric_is("portolan_failures_total{reason=\"client_closed\"}", 2.0).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_whole() {
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        let upstream = Upstream::new().await;
        let gateway = Gateway::orders(&[upstream.address]).await;
        let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
        let piece = if framing.starts_with('t') { "4\r\nhalf\r\n" } else { "half" };
        endpoint.write(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{piece}")).await;
        client.head().await.unwrap();
        assert_eq!(client.bytes(piece.len()).await, piece.as_bytes());
        drop(endpoint);
        assert!(client.is_closed().await, "nothing that could be taken for an end: {framing}");
        let line = gateway.logged(|line| line["reason"] == "upstream_reset").await;
        assert_eq!(line["bytes_out"], 4);
    }
}

/// A refusal that comes early reaches the client though it still sends; the endpoint is spared the rest.
#[tokio::test]
async fn an_early_refusal_is_relayed_and_stops_the_upload() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    endpoint.write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.text(), answer.field("connection")), (413, "big", Some("close")));
    assert!(client.is_closed().await);
    // The gateway reads on for a moment, so that the answer is not lost to a reset. A reset would come by itself, and
    // that none comes cannot be awaited.
    for _ in 0..3 {
        client.stream.write_all(&[b'x'; 64 * 1024]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while !endpoint.bytes(1 << 16).await.is_empty() {}

    // That connection is not used again.
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write(&ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
}

/// As long as the refusal is under way, nothing more of the upload is taken, however slow the endpoint is with it.
#[tokio::test]
async fn an_upload_stops_with_the_head_of_a_refusal() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    endpoint.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 3\r\n\r\nn").await;
    client.head().await.unwrap();
    let (mut from_gateway, mut to_gateway) = endpoint.stream.into_split();
    let reading =
        tokio::spawn(async move { tokio::io::copy(&mut from_gateway, &mut tokio::io::sink()).await });
    soon(pour(&mut client.stream)).await;
    to_gateway.write_all(b"o!").await.unwrap();
    assert_eq!(client.bytes(3).await, b"no!");
    // The rest of the upload is of no use to anybody, so the endpoint's connection is closed as well.
    soon(reading).await.unwrap().ok();
}

/// An early answer that is no refusal lets the upload go on: both directions flow at once.
#[tokio::test]
async fn both_directions_flow_at_once() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    endpoint.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.head().await.unwrap();
    for word in ["one", "two"] {
        let chunk = format!("3\r\n{word}\r\n");
        client.write(&chunk).await;
        assert_eq!(endpoint.bytes(chunk.len()).await, chunk.as_bytes());
        endpoint.write(&chunk).await;
        assert_eq!(client.bytes(chunk.len()).await, chunk.as_bytes());
    }
    client.write("0\r\n\r\n").await;
    assert_eq!(endpoint.bytes(5).await, b"0\r\n\r\n");
    endpoint.write("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
    let line = gateway.logged(|line| line["status"] == 200).await;
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&6.into(), &6.into()));
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_when_there_is_somebody_to_send_to() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let expecting = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    };
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&expecting("/orders/")).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    client.write("hi").await;
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert_eq!((request.text(), request.field("expect")), ("hi", None));
    endpoint.write(&ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);

    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask(&expecting("/nothing")).await;
    assert_eq!((answer.status(), answer.field("connection")), (404, Some("close")));
}

/// Writes until the other side takes no more for a while; gives the bytes that it took.
async fn pour(stream: &mut tokio::net::TcpStream) -> usize {
    // More than the sockets of two connections on loopback hold.
    const KERNEL: usize = 32 << 20;
    let piece = vec![b'x'; 1 << 16];
    let mut poured = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), stream.write(&piece)).await {
        poured += written.unwrap();
        assert!(poured < KERNEL, "the writer is not slowed down");
    }
    poured
}

/// What one side does not read, the other cannot go on sending; what piles up is what the kernels hold.
#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    let upstream = Upstream::new().await;
    let gateway = Setup::new().service("orders", &[upstream.address]).start().await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
    let poured = soon(pour(&mut endpoint.stream)).await;
    client.head().await.unwrap();
    assert_eq!(client.bytes(poured).await.len(), poured, "and everything comes when the reader goes on");

    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    let poured = soon(pour(&mut client.stream)).await;
    endpoint.head().await.unwrap();
    assert_eq!(endpoint.bytes(poured).await.len(), poured);
}
