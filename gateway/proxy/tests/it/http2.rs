//! Clients that speak HTTP/2 with prior knowledge.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Setup, Upstream, Wire, ok, soon};

async fn connect<B>(gateway: &Gateway) -> (SendRequest<B>, tokio::task::JoinHandle<hyper::Result<()>>)
where
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(gateway.edge).await.unwrap();
    let (sender, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(driver))
}

async fn text(body: hyper::body::Incoming) -> String {
    let body = Limited::new(body, 1 << 20);
    #[expect(clippy::disallowed_methods, reason = "bounded by the line above")]
    let bytes = soon(body.collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_becomes_one_of_http_1() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, _driver) = connect(&gateway).await;
    let request = Request::post("http://shop.test/orders/x?y=1")
        .version(Version::HTTP_2)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"body")))
        .unwrap();
    let answer = tokio::spawn(client.send_request(request));
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert!(request.head.starts_with("POST /x?y=1 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.all("host"), ["shop.test"]);
    assert_eq!(request.all("cookie"), ["a=1; b=2"]);
    assert_eq!(request.all("via"), ["2.0 portolan-test"]);
    assert_eq!(request.all("te"), ["trailers"]);
    assert_eq!(request.text(), "body");
    endpoint.write(&ok("answer", "connection: keep-alive\r\nkeep-alive: timeout=5\r\n")).await;
    let answer = soon(answer).await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("keep-alive")), (200, None));
    assert_eq!(text(answer.into_body()).await, "answer");
}

#[tokio::test]
async fn streams_run_side_by_side_and_one_that_is_reset_cancels_its_own_request_alone() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, _driver) = connect(&gateway).await;
    let request = |path: &str| {
        Request::get(format!("http://shop.test/orders/{path}")).body(Empty::<Bytes>::new()).unwrap()
    };
    let one = tokio::spawn(client.send_request(request("one")));
    let mut first = upstream.accept().await;
    first.next_message().await.unwrap();
    let two = tokio::spawn(client.send_request(request("two")));
    let mut second = upstream.accept().await;
    second.next_message().await.unwrap();
    one.abort();
    assert!(first.is_closed().await, "the endpoint of the reset stream is told");
    second.write(&ok("two", "")).await;
    assert_eq!(text(soon(two).await.unwrap().unwrap().into_body()).await, "two");
}

#[tokio::test]
async fn a_grpc_client_gets_its_own_kind_of_failure() {
    let gateway = Gateway::orders(&[]).await;
    let (mut client, _driver) = connect(&gateway).await;
    let request = Request::post("http://shop.test/orders/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = soon(client.send_request(request)).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
    assert_eq!(answer.headers()["x-portolan-reason"], "no_endpoints");
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://shop.test/orders/{path}")).body(Empty::new()).unwrap()
}

/// A client that gives no window for any response.
async fn connect_without_window(
    gateway: &Gateway,
) -> (SendRequest<Empty<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(gateway.edge).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(driver))
}

/// Answers with the head of a long response, and as much of its body as goes through.
async fn answer_at_length(endpoint: &mut Wire) {
    endpoint.next_message().await.unwrap();
    endpoint.write("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
    let piece = vec![b'x'; 1 << 16];
    while tokio::io::AsyncWriteExt::write_all(&mut endpoint.stream, &piece).await.is_ok() {}
}

#[tokio::test]
async fn streams_that_are_stuck_are_reset_and_let_go_of_their_endpoints() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.stream_idle = Duration::from_millis(1000);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let (mut client, driver) = connect_without_window(&gateway).await;
    let mut unread = Vec::new();
    for _ in 0..3 {
        let answer = tokio::spawn(client.send_request(get("")));
        let mut endpoint = upstream.accept().await;
        tokio::spawn(async move { answer_at_length(&mut endpoint).await });
        unread.push(soon(answer).await.unwrap().unwrap());
    }
    for response in unread {
        let mut body = response.into_body();
        let error = soon(body.frame()).await.unwrap().unwrap_err();
        assert!(format!("{error:?}").contains("INTERNAL_ERROR"), "{error:?}");
    }
    gateway.metric_is("portolan_failures_total{reason=\"stream_idle_timeout\"}", 3.0).await;
    gateway.metric_is("portolan_upstream_connections", 0.0).await;
    gateway.metric_is("portolan_connections{listener=\"edge\"}", 1.0).await;
    assert!(!driver.is_finished(), "the connection is well");
}

#[tokio::test]
async fn a_stuck_stream_is_reset_beside_one_that_is_well() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.stream_idle = Duration::from_millis(1000);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let (mut client, _driver) = connect_without_window(&gateway).await;
    let stuck = tokio::spawn(client.send_request(get("stuck")));
    let mut endpoint = upstream.accept().await;
    let answering = tokio::spawn(async move { answer_at_length(&mut endpoint).await });
    let mut unread = soon(stuck).await.unwrap().unwrap().into_body();
    let well = tokio::spawn(client.send_request(get("well")));
    let mut second = upstream.accept().await;
    second.next_message().await.unwrap();
    soon(answering).await.unwrap();
    assert!(soon(unread.frame()).await.unwrap().is_err());
    second.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(soon(well).await.unwrap().unwrap().status(), 204);
}

/// The frames of a client that says hello, and asks for `/orders/` on stream 1.
fn hello() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // :method GET, :scheme http, :path /orders/, :authority a
    let fields = [&[0x82, 0x86, 0x04, 8][..], b"/orders/", &[0x01, 1], b"a"].concat();
    bytes.extend([0, 0, u8::try_from(fields.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend(fields);
    bytes
}

/// Speaks HTTP/2 so far that a request is answered, and answers nothing itself from then on, no PING either.
async fn fall_silent(gateway: &Gateway, last_words: &[u8]) -> Wire {
    use tokio::io::AsyncWriteExt as _;
    let mut client = Wire::connect(gateway.edge).await;
    client.stream.write_all(&hello()).await.unwrap();
    let line = gateway.logged(|line| line["protocol"] == "HTTP/2").await;
    assert_eq!(line["status"], 200);
    client.stream.write_all(last_words).await.unwrap();
    client
}

#[tokio::test]
async fn an_idle_connection_that_answers_nothing_is_closed() {
    let mut setup = Setup::new().service("orders", &[Upstream::new().await.answer_all()]);
    setup.live.client_idle_timeout = Duration::from_millis(500);
    let gateway = setup.start().await;
    // Nothing; a PING of its own; the beginning of a head.
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    for last_words in [&[][..], &ping, &[0, 0, 20, 1, 4, 0, 0, 0, 3, 0x82]] {
        let mut client = fall_silent(&gateway, last_words).await;
        while !client.bytes(1).await.is_empty() {}
    }
}

#[tokio::test]
async fn draining_does_not_wait_for_a_client_that_answers_nothing() {
    let setup = Setup::new().service("orders", &[Upstream::new().await.answer_all()]);
    let mut gateway = setup.start().await;
    let _client = fall_silent(&gateway, &[]).await;
    let draining = gateway.take_proxy().drain(Duration::ZERO, Duration::from_secs(60), pending());
    let report = soon(draining).await;
    assert_eq!((report.connections, report.aborted), (1, 0));
}

#[tokio::test]
async fn draining_says_goaway_and_lets_streams_finish() {
    let upstream = Upstream::new().await;
    let mut gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, driver) = connect(&gateway).await;
    let request = Request::get("http://shop.test/orders/").body(Empty::<Bytes>::new()).unwrap();
    let answer = tokio::spawn(client.send_request(request));
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    let (proxy, edge) = (gateway.take_proxy(), gateway.edge);
    let draining = tokio::spawn(proxy.drain(Duration::ZERO, Duration::from_secs(60), pending()));
    soon(async {
        while TcpStream::connect(edge).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    endpoint.write(&ok("done", "")).await;
    assert_eq!(text(soon(answer).await.unwrap().unwrap().into_body()).await, "done");
    let report = soon(draining).await.unwrap();
    assert_eq!((report.in_flight, report.aborted), (1, 0));
    soon(driver).await.unwrap().unwrap();
    let request = Request::get("http://shop.test/orders/").body(Empty::<Bytes>::new()).unwrap();
    assert!(client.send_request(request).await.is_err(), "the connection is gone");
}

/// More requests at once than there are bits in a word, and a second time, when their places are used again.
#[tokio::test]
async fn as_many_streams_as_are_allowed_are_answered_side_by_side() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let (client, _driver) = connect(&gateway).await;
    for _ in 0..2 {
        let answers: Vec<_> = (0..100)
            .map(|number| {
                let mut client = client.clone();
                tokio::spawn(async move { client.send_request(get(&number.to_string())).await })
            })
            .collect();
        for answer in answers {
            let answer = soon(answer).await.unwrap().unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.headers().contains_key("date"));
            assert!(!text(answer.into_body()).await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_long_response_comes_whole_as_the_client_makes_room() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let stream = TcpStream::connect(gateway.edge).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1000).initial_connection_window_size(70_000);
    let (mut client, driver) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let answer = tokio::spawn(client.send_request(get("")));
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    let body: String = (0..40_000).map(|number| format!("{number},")).collect();
    let writing = {
        let answer = ok(&body, "");
        tokio::spawn(async move { endpoint.write(&answer).await })
    };
    let answer = soon(answer).await.unwrap().unwrap();
    assert_eq!(answer.headers()["content-length"], body.len().to_string());
    assert!(text(answer.into_body()).await == body);
    writing.await.unwrap();
}

/// A client that speaks HTTP/2 with all its freedom.
async fn connect_freely(gateway: &Gateway) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.edge).await.unwrap();
    let (client, driver) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(driver);
    soon(client.ready()).await.unwrap()
}

#[tokio::test]
async fn a_body_comes_in_pieces_with_trailers() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = connect_freely(&gateway).await;
    let request = Request::post("http://shop.test/orders/").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let mut endpoint = upstream.accept().await;
    let head = endpoint.head().await.unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    body.send_data(Bytes::from_static(b"one"), false).unwrap();
    assert_eq!(endpoint.bytes(8).await, b"3\r\none\r\n");
    body.send_data(Bytes::from_static(b"two"), false).unwrap();
    body.send_trailers(
        [("x-sum", "6")]
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect(),
    )
    .unwrap();
    assert_eq!(endpoint.bytes(8).await, b"3\r\ntwo\r\n");
    let end = endpoint.bytes(5).await;
    assert!(end.starts_with(b"0\r\n"), "{end:?}");
    endpoint.write(&ok("", "")).await;
    assert_eq!(soon(answer).await.unwrap().status(), 200);
}

/// Whatever the client gives as its reason: half a body is never passed off as a whole one.
#[tokio::test]
async fn a_body_that_is_cut_off_has_no_end_at_the_endpoint() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = connect_freely(&gateway).await;
    for reason in [h2::Reason::NO_ERROR, h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR] {
        let request = Request::post("http://shop.test/orders/").body(()).unwrap();
        let (_answer, mut body) = client.send_request(request, false).unwrap();
        let mut endpoint = upstream.accept().await;
        endpoint.head().await.unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        assert_eq!(endpoint.bytes(9).await, b"4\r\nhalf\r\n");
        body.send_reset(reason);
        assert!(endpoint.is_closed().await, "{reason}");
        client = soon(client.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_with_several_lengths_or_a_broken_one_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = connect_freely(&gateway).await;
    for lengths in [&["1", "2"][..], &["1", "1"], &["+1"], &["1, 1"], &["99999999999999999999"]] {
        let mut request = Request::post("http://shop.test/orders/").body(()).unwrap();
        for length in lengths {
            request.headers_mut().append("content-length", length.parse().unwrap());
        }
        let (answer, mut body) = client.send_request(request, false).unwrap();
        // The refusal may be here already.
        body.send_data(Bytes::from_static(b"1"), true).ok();
        let error = soon(answer).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR), "{lengths:?}");
        client = soon(client.ready()).await.unwrap();
    }
    assert!(!upstream.is_called().await);
}

#[tokio::test]
async fn a_preface_may_come_byte_by_byte() {
    use tokio::io::AsyncWriteExt as _;
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let mut client = Wire::connect(gateway.edge).await;
    for byte in hello() {
        client.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let line = gateway.logged(|line| line["protocol"] == "HTTP/2").await;
    assert_eq!(line["status"], 200);
    // One that only begins like it is HTTP/1.1, or nothing.
    let mut client = Wire::connect(gateway.edge).await;
    client.write("P").await;
    client.write("UT /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
}

#[tokio::test]
async fn streams_and_heads_have_limits() {
    let mut setup = Setup::new().service("orders", &[Upstream::new().await.answer_all()]);
    (setup.config.max_http2_streams, setup.config.max_head_bytes) = (7, 8192);
    let gateway = setup.start().await;
    let mut client = connect_freely(&gateway).await;
    let ask = |size: usize| {
        let request = Request::get("http://shop.test/orders/").header("x-large", "x".repeat(size));
        request.body(()).unwrap()
    };
    let (answer, _) = client.send_request(ask(1), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
    assert_eq!(client.current_max_send_streams(), 7);
    client = soon(client.ready()).await.unwrap();
    let (answer, _) = client.send_request(ask(9000), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 431);
}
