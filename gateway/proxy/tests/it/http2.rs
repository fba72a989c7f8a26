//! Clients that speak HTTP/2 with prior knowledge.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Upstream, ok, soon};

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
