//! Clients over HTTP/2 that are played frame by frame: what they must not do, and what no library lets them do.

use std::future::pending;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::{Gateway, Setup, Upstream, Wire, ok, soon};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const CALM: u32 = 11;

struct Client(Wire);

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// The status that a head of a response begins with.
    fn status(&self) -> u16 {
        match self.payload[0] {
            0x88 => 200,
            0x89 => 204,
            0x8c => 400,
            0x8d => 404,
            0x08 => std::str::from_utf8(&self.payload[2..5]).unwrap().parse().unwrap(),
            other => panic!("a head that begins with {other:#x}"),
        }
    }
}

/// A field block without any table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        for (above, text) in [(Some(0), name), (None, value)] {
            block.extend(above);
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
            block.extend(text.bytes());
        }
    }
    block
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/orders/"), (":authority", "shop.test")];

fn get_with(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    block(&[&GET[..], more].concat())
}

/// The head of a GET with one of its four fields changed; without a value it is left out.
fn get_but(name: &str, value: Option<&'static str>) -> Vec<u8> {
    let changed = GET.iter().filter_map(|&(other, usual)| {
        if other == name { value.map(|value| (other, value)) } else { Some((other, usual)) }
    });
    block(&changed.collect::<Vec<_>>())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Client {
    async fn connect(gateway: &Gateway) -> Self {
        let mut client = Self(Wire::connect(gateway.edge).await);
        client.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.say(&frame(SETTINGS, 0, 0, &[])).await;
        client
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.stream.write_all(bytes).await.unwrap();
    }

    /// Says it, though the gateway may have stopped to listen. Whether it has not.
    async fn goes_on_saying(&mut self, bytes: &[u8]) -> bool {
        self.0.stream.write_all(bytes).await.is_ok()
    }

    async fn ask(&mut self, stream: u32, block: &[u8]) {
        self.say(&frame(HEADERS, END_HEADERS | END_STREAM, stream, block)).await;
    }

    /// The next frame that is neither about settings nor about windows; none at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.0.bytes(9).await;
            if head.len() < 9 {
                return None;
            }
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let payload = self.0.bytes(length).await;
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            if frame.kind != SETTINGS && frame.kind != WINDOW_UPDATE {
                return Some(frame);
            }
        }
    }

    async fn answer(&mut self, stream: u32) -> u16 {
        loop {
            let frame = self.next().await.unwrap();
            if frame.stream == stream {
                assert_eq!(frame.kind, HEADERS, "{frame:?}");
                return frame.status();
            }
        }
    }

    /// Reads to the end; the reason that the gateway gave for it.
    async fn farewell(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        reason
    }
}

async fn orders() -> Gateway {
    Gateway::orders(&[Upstream::new().await.answer_all()]).await
}

/// All on one connection, which must survive each of them.
#[tokio::test]
async fn a_head_that_breaks_the_rules_ends_its_stream_and_nothing_else() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    let heads = [
        get_with(&[("Upper", "a")]),
        get_with(&[("connection", "close")]),
        get_with(&[("transfer-encoding", "chunked")]),
        get_with(&[("te", "gzip")]),
        get_with(&[("a", "b"), (":path", "/")]),
        get_with(&[(":path", "/")]),
        get_with(&[(":unknown", "a")]),
        get_with(&[("a", "b\r\nc: d")]),
        get_with(&[("a", " b")]),
        get_with(&[("a b", "c")]),
        get_with(&[("content-length", "10")]),
        get_with(&[("content-length", "0"), ("content-length", "0")]),
        get_but(":method", None),
        get_but(":scheme", None),
        get_but(":path", None),
        get_but(":path", Some("")),
        get_but(":path", Some("foo")),
        get_but(":path", Some("http://x/")),
        get_but(":path", Some("/a b")),
        get_but(":path", Some("/a\r\nb: c")),
        get_but(":path", Some("/a#b")),
        get_but(":method", Some("GET / HTTP/1.1\r\nX:")),
        get_but(":method", Some("GET?")),
    ];
    for (stream, head) in (1..).step_by(2).zip(&heads) {
        client.ask(stream, head).await;
        let frame = client.next().await.unwrap();
        assert_eq!((frame.kind, frame.stream, frame.number()), (RESET, stream, PROTOCOL_ERROR), "{head:?}");
    }
    assert!(!upstream.is_called().await);
    gateway.metric_is("portolan_failures_total{reason=\"bad_request\"}", heads.len() as f64).await;
}

#[tokio::test]
async fn a_head_that_is_sound_and_not_served_is_answered() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    let many: Vec<_> = GET.into_iter().chain(std::iter::repeat_n(("cookie", "a=b"), 200)).collect();
    let heads = [
        (get_but(":path", Some("*")), 400),
        (get_but(":scheme", Some("ftp")), 400),
        (get_but(":scheme", Some("http://evil/?")), 400),
        (get_but(":authority", Some("user@shop.test")), 400),
        (get_but(":authority", Some("shop.test, other.test")), 400),
        (get_but(":authority", Some("shop.test:99999")), 400),
        (get_but(":authority", Some("shop.test:a")), 400),
        (get_but(":authority", Some("shop .test")), 400),
        (get_but(":authority", Some("")), 400),
        (get_but(":authority", None), 400),
        (get_with(&[("host", "other.test")]), 400),
        (block(&[(":method", "CONNECT"), (":authority", "shop.test:80")]), 405),
        (block(&many), 431),
    ];
    for (stream, (head, status)) in (1..).step_by(2).zip(&heads) {
        client.ask(stream, head).await;
        assert_eq!(client.answer(stream).await, *status, "{:?}", String::from_utf8_lossy(head));
    }
    assert!(!upstream.is_called().await);
    gateway.metric_is("portolan_failures_total{reason=\"headers_too_large\"}", 1.0).await;
}

#[tokio::test]
async fn a_host_says_what_an_authority_would() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    client.ask(1, &block(&[&GET[..3], &[("host", "shop.test")]].concat())).await;
    let mut endpoint = upstream.accept().await;
    assert_eq!(endpoint.next_message().await.unwrap().all("host"), ["shop.test"]);
    client.ask(3, &get_with(&[("host", "SHOP.test")])).await;
    assert_eq!(upstream.accept().await.next_message().await.unwrap().all("host"), ["shop.test"]);
}

/// The scheme that the client says changes nothing of what an endpoint is told.
#[tokio::test]
async fn a_scheme_is_no_statement_about_the_connection() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    client.ask(1, &get_but(":scheme", Some("https"))).await;
    let request = upstream.accept().await.next_message().await.unwrap();
    assert_eq!(request.all("x-forwarded-proto"), ["http"]);
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_says_or_the_endpoint_sees_a_cut() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    let post = block(&[&[(":method", "POST")], &GET[1..], &[("content-length", "10")]].concat());
    let endings: [&[(u8, u8, &[u8])]; 4] = [
        &[(DATA, END_STREAM, b"world")],
        &[(DATA, 0, b"world, and all")],
        &[(HEADERS, END_HEADERS | END_STREAM, &[])],
        &[(HEADERS, END_HEADERS, &[])],
    ];
    for (stream, ending) in (1..).step_by(2).zip(endings) {
        client.say(&frame(HEADERS, END_HEADERS, stream, &post)).await;
        client.say(&frame(DATA, 0, stream, b"he")).await;
        let mut endpoint = upstream.accept().await;
        endpoint.head().await.unwrap();
        assert_eq!(endpoint.bytes(2).await, b"he");
        for (kind, flags, payload) in ending {
            client.say(&frame(*kind, *flags, stream, payload)).await;
        }
        let frame = client.next().await.unwrap();
        assert_eq!((frame.kind, frame.stream, frame.number()), (RESET, stream, PROTOCOL_ERROR), "{ending:?}");
        assert!(endpoint.is_closed().await, "{ending:?}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_it_is_told_to_go_on() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    let post = block(&[&[(":method", "POST")], &GET[1..], &[("expect", "100-continue")]].concat());
    client.say(&frame(HEADERS, END_HEADERS, 1, &post)).await;
    assert_eq!(client.answer(1).await, 100);
    client.say(&frame(DATA, END_STREAM, 1, b"body")).await;
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert_eq!((request.text(), request.all("expect").len()), ("body", 0));
    endpoint.write(&ok("", "")).await;
    assert_eq!(client.answer(1).await, 200);
}

#[tokio::test]
async fn requests_that_are_cancelled_at_once_end_the_connection_in_the_end() {
    let gateway = orders().await;
    let mut client = Client::connect(&gateway).await;
    let mut stream = 1;
    for _ in 0..1000 {
        let both = [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_with(&[])),
            frame(RESET, 0, stream, &8u32.to_be_bytes()),
        ];
        if !client.goes_on_saying(&both.concat()).await {
            break;
        }
        stream += 2;
    }
    assert_eq!(soon(client.farewell()).await, Some(CALM));
    // Others are served.
    let mut other = Client::connect(&gateway).await;
    other.ask(1, &get_with(&[])).await;
    assert_eq!(other.answer(1).await, 200);
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let gateway = orders().await;
    let mut client = Client::connect(&gateway).await;
    client.say(&frame(HEADERS, END_STREAM, 1, &get_with(&[]))).await;
    for _ in 0..10 {
        client.goes_on_saying(&frame(CONTINUATION, 0, 1, &[0; 16_000])).await;
    }
    assert_eq!(soon(client.farewell()).await, Some(CALM));
}

#[tokio::test]
async fn a_flood_of_frames_ends_the_connection() {
    let gateway = orders().await;
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), frame(99, 0, 0, &[0; 100])] {
        let mut client = Client::connect(&gateway).await;
        for _ in 0..100 {
            if !client.goes_on_saying(&flood.repeat(100)).await {
                break;
            }
        }
        assert_eq!(soon(client.farewell()).await, Some(CALM), "{:?}", &flood[..9]);
    }
}

/// A client that neither reads nor makes room costs what its streams may hold, and no endpoint for longer than a while.
#[tokio::test]
async fn a_client_that_reads_nothing_holds_no_endpoint() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.policy.timeouts.stream_idle = Duration::from_millis(1000);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let mut client = Client::connect(&gateway).await;
    // All the room that there can be, so that it is the socket that is full.
    client.say(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
    client.say(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes())).await;
    // All at once: with answers that wait, nothing more is read.
    let requests = [1, 3, 5].map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_with(&[])));
    client.say(&requests.concat()).await;
    for _ in 0..3 {
        let mut endpoint = upstream.accept().await;
        tokio::spawn(async move {
            endpoint.next_message().await.unwrap();
            endpoint.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            let piece = vec![b'x'; 1 << 16];
            while endpoint.stream.write_all(&piece).await.is_ok() {}
        });
    }
    gateway.metric_is("portolan_failures_total{reason=\"stream_idle_timeout\"}", 3.0).await;
    gateway.metric_is("portolan_upstream_connections", 0.0).await;
}

/// Its endpoint has done its work, and nothing but the client is waited for.
#[tokio::test]
async fn a_client_that_does_not_take_its_answer_holds_it_for_a_while_only() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new();
    setup.live.client_idle_timeout = Duration::from_millis(1000);
    let gateway = setup.service("orders", &[upstream.address]).start().await;
    let mut client = Client::connect(&gateway).await;
    client.say(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    client.ask(1, &get_with(&[])).await;
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    // The connection is not idle: another request goes on.
    client.ask(3, &get_with(&[])).await;
    let mut other = upstream.accept().await;
    other.next_message().await.unwrap();
    endpoint.write(&ok("answer", "")).await;
    assert_eq!(client.answer(1).await, 200);
    let frame = soon(client.next()).await.unwrap();
    assert_eq!((frame.kind, frame.stream, frame.number()), (RESET, 1, INTERNAL_ERROR));
    other.write(&ok("", "")).await;
    assert_eq!(client.answer(3).await, 200);
}

#[tokio::test]
async fn padding_takes_no_room_in_the_end() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    let post = block(&[&[(":method", "POST")], &GET[1..]].concat());
    client.say(&frame(HEADERS, END_HEADERS, 1, &post)).await;
    let mut endpoint = upstream.accept().await;
    let reading =
        tokio::spawn(async move { endpoint.next_message().await.map(|message| message.body.len()) });
    // More than the windows of the stream and of the connection.
    let padded = frame(DATA, 8, 1, &[&[255][..], b"x", &[0; 255]].concat());
    for _ in 0..6000 {
        client.say(&padded).await;
    }
    client.say(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(soon(reading).await.unwrap(), Some(6001));
}

#[tokio::test]
async fn a_drain_is_told_in_two_steps_and_loses_nothing() {
    let upstream = Upstream::new().await;
    let mut gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Client::connect(&gateway).await;
    client.ask(1, &get_with(&[])).await;
    let mut first = upstream.accept().await;
    first.next_message().await.unwrap();
    let (proxy, edge) = (gateway.take_proxy(), gateway.edge);
    let draining = tokio::spawn(proxy.drain(Duration::ZERO, Duration::from_secs(60), pending()));
    let goaway = client.next().await.unwrap();
    assert_eq!((goaway.kind, goaway.number()), (GOAWAY, 0x7fff_ffff));
    let ping = client.next().await.unwrap();
    assert_eq!((ping.kind, ping.flags), (PING, 0));
    // It was on its way.
    client.ask(3, &get_with(&[])).await;
    let mut second = upstream.accept().await;
    second.next_message().await.unwrap();
    client.say(&frame(PING, ACK, 0, &ping.payload)).await;
    let goaway = client.next().await.unwrap();
    assert_eq!((goaway.kind, goaway.number()), (GOAWAY, 3));
    // This one can be asked elsewhere.
    client.ask(5, &get_with(&[])).await;
    first.write(&ok("", "")).await;
    second.write(&ok("", "")).await;
    let mut answered = [client.next().await.unwrap(), client.next().await.unwrap()];
    answered.sort_by_key(|frame| frame.stream);
    assert_eq!(
        answered.iter().map(|frame| (frame.stream, frame.status())).collect::<Vec<_>>(),
        [(1, 200), (3, 200)]
    );
    assert_eq!(client.next().await, None);
    assert!(!upstream.is_called().await);
    soon(draining).await.unwrap();
    assert!(TcpStream::connect(edge).await.is_err());
}
