//! Everything that waits has an end.

use std::net::SocketAddr;
use std::time::Duration;

use portolan_model::Endpoint;
use tokio::time::Instant;

use crate::harness::{Setup, Upstream, Wire, get, ok, soon};

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_504_and_is_let_go() {
    let (one, two) = (Upstream::new().await, Upstream::new().await);
    let mut setup = Setup::new();
    setup.policy.timeouts.response_header = Duration::from_millis(500);
    let gateway = setup.service("orders", &[one.address, two.address]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let (mut endpoint, other) = tokio::select! {
        wire = one.accept() => (wire, &two),
        wire = two.accept() => (wire, &one),
    };
    endpoint.next_message().await.unwrap();
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (504, "response_timeout"));
    assert!(endpoint.is_closed().await, "nobody waits for it any more");
    assert!(!other.is_called().await, "a time-out is final");
}

/// A listener whose queue is full: the kernel drops what comes on top.
fn silent() -> (SocketAddr, impl Sized) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&crate::harness::loopback().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fills_the_queue = std::net::TcpStream::connect(address).unwrap();
    (address, (socket, fills_the_queue))
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_is_504() {
    let (address, _kept) = silent();
    let mut setup = Setup::new();
    setup.policy.timeouts.connect = Duration::from_millis(500);
    setup.policy.retry.max_retries = 0;
    let gateway = setup.service("orders", &[address]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask(&get("/orders/")).await;
    assert_eq!((answer.status(), answer.reason()), (504, "connect_timeout"));
}

/// The address of a pod that is gone answers nothing, until Kubernetes says that it is gone.
#[tokio::test]
async fn nobody_waits_for_a_connection_to_an_endpoint_that_left() {
    let ((address, _kept), live) = (silent(), Upstream::new().await.answer_all());
    let mut setup = Setup::new();
    setup.policy.timeouts.connect = Duration::from_secs(3600);
    let gateway = setup.service("orders", &[address]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let shown = || serde_json::to_string(&gateway.proxy().table().view(Instant::now())).unwrap();
    soon(async {
        while !shown().contains("\"in_flight\":1") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gateway.set_endpoints(vec![Endpoint::new(live)]).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_that_stalls_is_cut_off_visibly() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.stream_idle = Duration::from_millis(500);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    assert!(client.head().await.is_some());
    assert_eq!(client.bytes(1000).await, b"2\r\nhi\r\n", "no last chunk");
    let line = gateway.logged(|line| line["reason"] == "stream_idle_timeout").await;
    assert_eq!((&line["status"], &line["bytes_out"]), (&200.into(), &2.into()));
    assert!(endpoint.is_closed().await);
}

#[tokio::test]
async fn a_request_body_that_stalls_is_504() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.stream_idle = Duration::from_millis(500);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut endpoint = upstream.accept().await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (504, "stream_idle_timeout"));
    endpoint.head().await.unwrap();
    assert_eq!(endpoint.bytes(10).await, b"half");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.stream_idle = Duration::from_millis(1000);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let (_client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    let piece = vec![b'x'; 1 << 20];
    while soon(tokio::io::AsyncWriteExt::write_all(&mut endpoint.stream, &piece)).await.is_ok() {}
    gateway.logged(|line| line["reason"] == "stream_idle_timeout").await;
}

/// It sends on meanwhile, so that its next request waits for the end of the response before it.
#[tokio::test]
async fn a_client_that_asks_on_and_does_not_read_is_cut_off() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new().service("orders", &[upstream.address]);
    setup.live.request_head_timeout = Duration::from_millis(500);
    setup.live.client_idle_timeout = Duration::from_millis(500);
    let gateway = setup.start().await;
    let mut client = Wire::connect(gateway.edge).await;
    // More responses than the kernels take, each of one piece.
    client.write(&get("/orders/").repeat(2000)).await;
    let mut endpoint = upstream.accept().await;
    let answer = ok(&"d".repeat(6000), "");
    tokio::spawn(async move {
        while endpoint.next_message().await.is_some() {
            endpoint.write(&answer).await;
        }
    });
    gateway.metric_is("portolan_connections{listener=\"edge\"}", 1.0).await;
    gateway.metric_is("portolan_connections{listener=\"edge\"}", 0.0).await;
    drop(client);
}

#[tokio::test]
async fn the_whole_exchange_can_have_a_deadline() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.request = Some(Duration::from_millis(500));
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let _endpoint = upstream.accept().await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (504, "deadline_exceeded"));
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_told_apart() {
    let address = Upstream::new().await.answer_all();
    let mut setup = Setup::new().service("orders", &[address]);
    setup.live.request_head_timeout = Duration::from_millis(1000);
    setup.live.client_idle_timeout = Duration::from_secs(600);
    let gateway = setup.start().await;
    let mut silent = Wire::connect(gateway.edge).await;
    let mut slow = Wire::connect(gateway.edge).await;
    let mut idle = Wire::connect(gateway.edge).await;
    slow.write("GET /orders/ HTTP/1.1\r\nho").await;
    assert_eq!(idle.ask(&get("/orders/")).await.status(), 200);
    assert!(silent.is_closed().await);
    let answer = slow.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (408, "request_timeout"));
    assert!(slow.is_closed().await);
    gateway.metric_is("portolan_failures_total{reason=\"request_timeout\"}", 2.0).await;
    assert_eq!(idle.ask(&get("/orders/")).await.status(), 200, "idle is not slow");

    gateway.live.send_modify(|live| {
        std::sync::Arc::make_mut(live).client_idle_timeout = Duration::from_millis(500);
    });
    assert!(idle.is_closed().await);
    gateway.metric_is("portolan_failures_total{reason=\"request_timeout\"}", 2.0).await;
}

#[tokio::test]
async fn idle_upstream_connections_are_closed_in_time() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new().service("orders", &[upstream.address]);
    setup.live.upstream_idle_timeout = Duration::from_millis(200);
    let gateway = setup.start().await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write(&ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
    assert!(endpoint.is_closed().await);
}
