use std::future::poll_fn;

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::http::survey::Survey;
use crate::http1::framing::Framing;

async fn open() -> (Leg, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Leg::new(stream, 64, Rc::default(), Rc::default()), listener.accept().await.unwrap().0)
}

fn begin(leg: &mut Leg, request: http::request::Builder, has_body: bool) {
    let head = request.header("host", "a").body(()).unwrap().into_parts().0;
    leg.begin(&head.into(), ([127, 0, 0, 1], 1).into(), has_body).unwrap();
}

async fn send(leg: &mut Leg, pieces: Vec<Piece>) -> Result<(), UploadBroken> {
    let mut pieces = pieces.into_iter();
    let mut next = |_: &mut Context<'_>| Poll::Ready(pieces.next().ok_or(UploadBroken));
    let sent = poll_fn(|cx| leg.poll_send(cx, &mut next)).await;
    leg.flushes.flush();
    sent
}

async fn exchange(leg: &mut Leg, endpoint: &mut TcpStream, answer: &[u8]) -> Result<String, LegBroken> {
    begin(leg, Request::get("/a"), false);
    assert_eq!(leg.moved(), (false, false));
    send(leg, Vec::new()).await.unwrap();
    let mut request = [0; 28];
    endpoint.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    endpoint.write_all(answer).await.unwrap();
    let head = poll_fn(|cx| leg.poll_head(cx)).await?;
    let mut body = BodyReader::new(Framing::of_response(&Method::GET, &head, &Survey::of(&head.headers))?);
    let mut text = head.status.as_str().to_owned();
    while let Piece::Data(data) = poll_fn(|cx| leg.poll_body(cx, &mut body)).await? {
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
    Ok(text)
}

#[tokio::test]
async fn requests_go_one_after_the_other() {
    let (mut leg, mut endpoint) = open().await;
    for _ in 0..2 {
        let answer = b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(exchange(&mut leg, &mut endpoint, answer).await.unwrap(), "200hello");
        assert_eq!(leg.moved(), (true, true));
        assert!(leg.is_quiet());
    }
    drop(endpoint);
    poll_fn(|cx| leg.socket.stream.borrow().poll_read_ready(cx)).await.unwrap();
    assert!(!leg.is_quiet());
}

/// Nothing is polled between the other side's act and the question: the kernel alone knows.
#[tokio::test]
async fn the_kernel_is_asked_where_a_request_cannot_be_sent_again() {
    for speaks in [false, true] {
        let (leg, endpoint) = open().await;
        assert!(leg.is_quiet_to_the_kernel());
        let mut endpoint = endpoint.into_std().unwrap();
        if speaks {
            std::io::Write::write_all(&mut endpoint, b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        } else {
            drop(endpoint);
        }
        assert!(leg.is_quiet());
        assert!(!leg.is_quiet_to_the_kernel());
    }
}

#[tokio::test]
async fn the_beginning_of_a_body_goes_out_with_the_head() {
    let (mut leg, mut endpoint) = open().await;
    begin(&mut leg, Request::put("/a").header("transfer-encoding", "chunked"), true);
    assert!(!leg.is_sent());
    // It comes after having been asked for.
    let mut pieces = [Poll::Pending, Poll::Ready(Ok(Piece::Data(Bytes::from("hello"))))].into_iter();
    let mut next = |_: &mut Context<'_>| pieces.next().unwrap_or(Poll::Ready(Ok(Piece::End(None))));
    poll_fn(|cx| leg.poll_send(cx, &mut next)).await.unwrap();
    assert!(leg.is_quiet());
    let mut request = vec![0; 100];
    let length = endpoint.read(&mut request).await.unwrap();
    let all = b"PUT /a HTTP/1.1\r\ntransfer-encoding: chunked\r\nhost: a\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(request[..length].escape_ascii().to_string(), all.escape_ascii().to_string());
}

/// What the endpoint does not read is not taken from the client either, but for one piece.
#[tokio::test]
async fn a_body_waits_for_the_endpoint_to_read() {
    const LENGTH: usize = 64 * 1024;
    let (mut leg, mut endpoint) = open().await;
    begin(&mut leg, Request::put("/a").header("transfer-encoding", "chunked"), true);
    let taken = std::cell::Cell::new(0);
    let mut next = |_: &mut Context<'_>| {
        taken.set(taken.get() + 1);
        Poll::Ready(Ok(Piece::Data(Bytes::from_static(&[b'x'; LENGTH]))))
    };
    // More than the sockets on loopback hold.
    for _ in 0..1000 {
        let polled = poll_fn(|cx| Poll::Ready(leg.poll_send(cx, &mut next))).await;
        assert!(polled.is_pending());
    }
    let stopped_at = taken.get();
    assert!(stopped_at < 500, "{stopped_at} pieces");
    let mut rest = vec![0; stopped_at * LENGTH];
    tokio::select! {
        _ = poll_fn(|cx| leg.poll_send(cx, &mut next)) => unreachable!("the body has no end"),
        read = endpoint.read_exact(&mut rest) => assert_eq!(read.unwrap(), stopped_at * LENGTH),
    }
    assert!(taken.get() > stopped_at);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_head_says_breaks_off() {
    for pieces in [
        vec![Piece::Data(Bytes::from("hel")), Piece::End(None)],
        vec![Piece::Data(Bytes::from("hello")), Piece::Data(Bytes::from("!"))],
        vec![Piece::Data(Bytes::from("hel"))],
    ] {
        let (mut leg, _endpoint) = open().await;
        begin(&mut leg, Request::put("/a").header("content-length", "5"), true);
        assert!(send(&mut leg, pieces).await.is_err());
        assert!(!leg.is_quiet());
    }
    let (mut leg, _endpoint) = open().await;
    let lengths = Request::put("/a").header("content-length", "5").header("content-length", "6").body(());
    assert!(leg.begin(&lengths.unwrap().into_parts().0.into(), ([127, 0, 0, 1], 1).into(), true).is_err());
}

#[tokio::test]
async fn a_large_body_is_read_in_large_pieces() {
    let (mut leg, mut endpoint) = open().await;
    begin(&mut leg, Request::get("/a"), false);
    send(&mut leg, Vec::new()).await.unwrap();
    let length = 1 << 20;
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes(), vec![b'x'; length]];
    let writing = tokio::spawn(async move {
        endpoint.write_all(&answer.concat()).await.unwrap();
        endpoint
    });
    let head = poll_fn(|cx| leg.poll_head(cx)).await.unwrap();
    let mut body =
        BodyReader::new(Framing::of_response(&Method::GET, &head, &Survey::of(&head.headers)).unwrap());
    let mut largest = 0;
    while let Piece::Data(data) = poll_fn(|cx| leg.poll_body(cx, &mut body)).await.unwrap() {
        largest = largest.max(data.len());
    }
    assert!((READ..=READ_OF_LARGE).contains(&largest), "{largest}");
    writing.await.unwrap();
}

#[tokio::test]
async fn what_nobody_asked_for_is_not_quiet() {
    let (mut leg, mut endpoint) = open().await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200";
    assert_eq!(exchange(&mut leg, &mut endpoint, answer).await.unwrap(), "200");
    assert!(!leg.is_quiet());
}

#[tokio::test]
async fn what_is_no_response_is_told() {
    for answer in [
        "HTTP/1.1 101 x\r\n\r\n".to_owned(),
        "HTTP/1.1 100 x\r\n\r\n".repeat(50),
        format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(64)),
        "nonsense".to_owned(),
    ] {
        let (mut leg, mut endpoint) = open().await;
        let result = exchange(&mut leg, &mut endpoint, answer.as_bytes()).await;
        assert!(matches!(result, Err(LegBroken::Malformed(_))), "{answer}: {result:?}");
    }
}

#[tokio::test]
async fn the_end_of_the_connection_is_told() {
    let (mut leg, endpoint) = open().await;
    drop(endpoint);
    let result = poll_fn(|cx| leg.poll_head(cx)).await;
    assert!(matches!(result, Err(LegBroken::Closed)));
    assert_eq!(leg.moved(), (false, false));
}

/// A body that ends with its connection ends with the other side's word, never with a reset.
#[tokio::test]
async fn a_reset_is_no_end_of_a_body() {
    let (mut leg, mut endpoint) = open().await;
    begin(&mut leg, Request::get("/a"), false);
    send(&mut leg, Vec::new()).await.unwrap();
    endpoint.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
    let head = poll_fn(|cx| leg.poll_head(cx)).await.unwrap();
    let mut body =
        BodyReader::new(Framing::of_response(&Method::GET, &head, &Survey::of(&head.headers)).unwrap());
    let data = poll_fn(|cx| leg.poll_body(cx, &mut body)).await.unwrap();
    assert_eq!(data, Piece::Data(Bytes::from("half")));
    SockRef::from(&endpoint).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(endpoint);
    let end = poll_fn(|cx| leg.poll_body(cx, &mut body)).await;
    assert!(matches!(end, Err(LegBroken::Reset(_))), "{end:?}");
}

#[tokio::test]
async fn nothing_is_written_of_a_request_that_was_given_up() {
    let (mut leg, mut endpoint) = open().await;
    begin(&mut leg, Request::get("/a"), false);
    let mut next = |_: &mut Context<'_>| Poll::Ready(Err(UploadBroken));
    poll_fn(|cx| leg.poll_send(cx, &mut next)).await.unwrap();
    let flushes = Rc::clone(&leg.flushes);
    drop(leg);
    flushes.flush();
    assert_eq!(endpoint.read(&mut [0]).await.unwrap(), 0);
}

/// Tells that it was woken.
#[derive(Default)]
struct Woken(tokio::sync::Notify);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn what_the_worker_cannot_write_wakes_its_owner_when_there_is_room() {
    let (mut leg, mut endpoint) = open().await;
    let mut before = 0;
    poll_fn(|cx| leg.socket.stream.borrow().poll_write_ready(cx)).await.unwrap();
    while let Ok(written) = leg.socket.stream.borrow().try_write(&[b'x'; 64 * 1024]) {
        before += written;
    }
    begin(&mut leg, Request::get("/a"), false);
    let owner = std::sync::Arc::new(Woken::default());
    let waker = std::task::Waker::from(std::sync::Arc::clone(&owner));
    let mut cx = Context::from_waker(&waker);
    let mut nothing = |_: &mut Context<'_>| Poll::Ready(Ok(Piece::End(None)));
    assert!(leg.poll_send(&mut cx, &mut nothing).is_ready(), "left to the worker");
    leg.flushes.flush();
    assert_eq!((leg.is_sent(), leg.moved()), (false, (false, false)));

    let mut taken = vec![0; before];
    endpoint.read_exact(&mut taken).await.unwrap();
    owner.0.notified().await;
    assert!(leg.poll_send(&mut cx, &mut nothing).is_ready());
    assert_eq!((leg.is_sent(), leg.moved()), (true, (true, false)));
    let mut request = [0; 28];
    endpoint.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
}

/// As one does that gives up waiting for a request (408), or answers one twice.
#[tokio::test]
async fn what_comes_before_the_request_was_written_is_no_answer_to_it() {
    let (mut leg, mut endpoint) = open().await;
    begin(&mut leg, Request::post("/a"), false);
    let mut nothing = |_: &mut Context<'_>| Poll::Ready(Ok(Piece::End(None)));
    poll_fn(|cx| leg.poll_send(cx, &mut nothing)).await.unwrap();
    endpoint.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let head = poll_fn(|cx| leg.poll_head(cx)).await;
    assert!(matches!(head, Err(LegBroken::Unasked)), "{head:?}");
    assert!(!leg.moved().0, "it can be sent on another connection");
}
