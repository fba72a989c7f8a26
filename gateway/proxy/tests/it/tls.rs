//! Clients that speak TLS, and some that do not although they should.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portolan_model::{Listener, ListenerId, Protocol, Role};
use portolan_proxy::{Certificate, ListenerState, ServedCertificate};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Gateway, Setup, Upstream, Wire, listener, loopback, ok, soon};

/// A certificate for `shop.test`, and what a client must trust to believe it.
fn issued() -> (Certificate, CertificateDer<'static>) {
    let issued = rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).unwrap();
    let (chain, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    (Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap(), issued.cert.der().clone())
}

/// A gateway with a listener over TLS and one service, `orders`, that answers at this upstream.
async fn gateway(upstream: &Upstream) -> (Gateway, CertificateDer<'static>) {
    let (certificate, trusted) = issued();
    let setup = Setup::new().service("orders", &[upstream.address]).tls(ServedCertificate::new(certificate));
    (setup.start().await, trusted)
}

/// A connection after its handshake, or why there is none.
async fn connect(
    gateway: &Gateway,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let socket = soon(TcpStream::connect(gateway.tls.unwrap())).await?;
    let name = ServerName::try_from("shop.test").unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
const ASK: &str = "GET /orders/x HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";

/// Asks once and reads until the gateway says that nothing more comes; without `close_notify` that is an error.
async fn ask(mut stream: TlsStream<TcpStream>) -> String {
    soon(stream.write_all(ASK.as_bytes())).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

fn failures(gateway: &Gateway, reason: &str) -> String {
    assert!(gateway.tls.is_some());
    format!("portolan_tls_handshakes_failed_total{{listener=\"tls\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn http_1_is_served_and_the_endpoint_learns_of_https() {
    let upstream = Upstream::new().await;
    let (gateway, trusted) = gateway(&upstream).await;
    let stream = connect(&gateway, &trusted, &BOTH, &["http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = tokio::spawn(ask(stream));
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert_eq!(request.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.all("x-forwarded-port"), [gateway.tls.unwrap().port().to_string()]);
    assert_eq!(request.all("forwarded"), ["for=127.0.0.1;host=shop.test;proto=https"]);
    endpoint.write(&ok("answer", "")).await;
    let answer = soon(answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("answer"), "{answer}");
    gateway.metric_is("portolan_connections{listener=\"tls\"}", 0.0).await;
}

#[tokio::test]
async fn http_2_is_served_where_the_client_knows_both() {
    let upstream = Upstream::new().await;
    let (gateway, trusted) = gateway(&upstream).await;
    upstream.answer_all();
    let stream = connect(&gateway, &trusted, &BOTH, &["http/1.1", "h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, driver) = soon(handshake).await.unwrap();
    tokio::spawn(driver);
    let request = Request::get("https://shop.test/orders/x").body(Empty::<bytes::Bytes>::new()).unwrap();
    let answer = soon(client.send_request(request)).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
}

#[tokio::test]
async fn either_version_and_no_alpn_are_served() {
    let upstream = Upstream::new().await;
    let (gateway, trusted) = gateway(&upstream).await;
    upstream.answer_all();
    for wanted in BOTH {
        let stream = connect(&gateway, &trusted, &[wanted], &[]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(wanted.version));
        assert!(ask(stream).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn what_is_no_tls_is_counted_and_harms_nobody() {
    let upstream = Upstream::new().await;
    let (gateway, trusted) = gateway(&upstream).await;
    upstream.answer_all();
    for garbage in [ASK, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "\u{16}\u{3}\u{1}\0\u{5}nonsense"] {
        let mut client = Wire::connect(gateway.tls.unwrap()).await;
        client.write(garbage).await;
        let mut told = Vec::new();
        // An alert and the end, or a reset where more had been sent than was read.
        drop(soon(client.stream.read_to_end(&mut told)).await);
        assert!(!told.starts_with(b"HTTP"), "{told:?}");
    }
    gateway.metric_is(&failures(&gateway, "not_tls"), 3.0).await;
    let stream = connect(&gateway, &trusted, &BOTH, &[]).await.unwrap();
    assert!(ask(stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_leaves_or_refuses_or_knows_other_protocols_is_counted_as_such() {
    let upstream = Upstream::new().await;
    let (gateway, trusted) = gateway(&upstream).await;
    drop(Wire::connect(gateway.tls.unwrap()).await);
    gateway.metric_is(&failures(&gateway, "closed"), 1.0).await;
    let (_, another) = issued();
    connect(&gateway, &another, &BOTH, &[]).await.unwrap_err();
    gateway.metric_is(&failures(&gateway, "client_alert"), 1.0).await;
    connect(&gateway, &trusted, &BOTH, &["spdy/3"]).await.unwrap_err();
    gateway.metric_is(&failures(&gateway, "incompatible"), 1.0).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    let (certificate, _) = issued();
    let mut setup = Setup::new().tls(ServedCertificate::new(certificate));
    setup.live.request_head_timeout = Duration::from_millis(300);
    let gateway = setup.start().await;
    let mut silent = Wire::connect(gateway.tls.unwrap()).await;
    let mut slow = Wire::connect(gateway.tls.unwrap()).await;
    slow.write("\u{16}\u{3}\u{1}").await;
    assert!(silent.is_closed().await && slow.is_closed().await);
    gateway.metric_is(&failures(&gateway, "timeout"), 2.0).await;
    gateway.metric_is("portolan_connections{listener=\"tls\"}", 0.0).await;
}

#[tokio::test]
async fn draining_does_not_wait_for_a_handshake_that_does_not_go_on() {
    let upstream = Upstream::new().await;
    let (mut gateway, _) = gateway(&upstream).await;
    let mut silent = Wire::connect(gateway.tls.unwrap()).await;
    gateway.metric_is("portolan_connections{listener=\"tls\"}", 1.0).await;
    let begun = tokio::time::Instant::now();
    let draining =
        gateway.take_proxy().drain(Duration::ZERO, Duration::from_secs(60), std::future::pending());
    let report = soon(draining).await;
    assert_eq!((report.in_flight, report.aborted), (0, 0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let ((before, trusted_before), (after, trusted_after)) = (issued(), issued());
    let served = ServedCertificate::new(before);
    let address = Upstream::new().await.answer_all();
    let gateway = Setup::new().service("orders", &[address]).tls(served.clone()).start().await;
    let open = connect(&gateway, &trusted_before, &BOTH, &[]).await.unwrap();
    served.replace(after);
    connect(&gateway, &trusted_before, &BOTH, &[]).await.unwrap_err();
    let renewed = connect(&gateway, &trusted_after, &BOTH, &[]).await.unwrap();
    assert!(ask(renewed).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(open).await.starts_with("HTTP/1.1 200 "), "what is open stays open");
}

#[tokio::test]
async fn without_a_certificate_nothing_is_opened_and_that_is_told() {
    let gateway = Setup::new().start().await;
    let extra = Listener { protocol: Protocol::Https, ..listener("tls", loopback(), Role::Edge) };
    gateway
        .change(|snapshot| {
            snapshot.listeners.insert(ListenerId::new("tls"), Arc::new(extra));
        })
        .await;
    let mut listeners = gateway.proxy().listeners();
    let seen = soon(listeners.wait_for(|listeners| listeners.len() == 3)).await.unwrap();
    let status = seen.iter().find(|status| status.listener.id.as_str() == "tls").unwrap();
    let ListenerState::Denied { message } = &status.state else { panic!("{status:?}") };
    assert!(message.contains("--tls-cert and --tls-key"), "{message}");
}

/// Responses that are left to the worker and do not go through at once follow whole and in their order.
#[tokio::test]
async fn many_responses_arrive_at_a_reader_that_is_slow() {
    const ASKED: usize = 1500;
    let upstream = Upstream::new().await;
    let (gateway, trusted) = gateway(&upstream).await;
    let stream = connect(&gateway, &trusted, &BOTH, &["http/1.1"]).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let asking = tokio::spawn(async move {
        let ask = "GET /orders/x HTTP/1.1\r\nhost: shop.test\r\n\r\n";
        soon(writing.write_all([&ask.repeat(ASKED - 1), ASK].concat().as_bytes())).await.unwrap();
        soon(writing.flush()).await.unwrap();
        writing
    });
    let mut endpoint = upstream.accept().await;
    tokio::spawn(async move {
        for number in 0.. {
            let Some(_) = endpoint.next_message().await else { return };
            endpoint.write(&ok(&format!("{number:06}").repeat(1000), "")).await;
        }
    });
    // The kernels take some of it; the rest waits for the reader, who has no sign of that.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut answers = String::new();
    soon(reading.read_to_string(&mut answers)).await.unwrap();
    let bodies: Vec<_> = answers.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(bodies.len(), ASKED);
    for (number, body) in bodies.iter().enumerate() {
        assert!(body.ends_with(&format!("\r\n\r\n{}", format!("{number:06}").repeat(1000))), "{number}");
    }
    drop(asking.await.unwrap());
}
