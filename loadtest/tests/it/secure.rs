//! A server over TLS, or of HTTP/2 in the clear, that answers by path.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Where it listens, and what its clients trust it by.
pub(crate) struct Secure {
    pub(crate) address: SocketAddr,
    /// Its certificate as PEM, for `localhost`; empty in the clear.
    pub(crate) pem: String,
}

/// Speaks one of these protocols over TLS, as the client wishes.
pub(crate) fn over_tls(protocols: &[&[u8]]) -> Secure {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|&protocol| protocol.to_vec()).collect();
    Secure { address: start(Some(TlsAcceptor::from(Arc::new(config)))), pem: made.cert.pem() }
}

/// Speaks HTTP/2 by prior knowledge.
pub(crate) fn clear_http2() -> Secure {
    Secure { address: start(None), pem: String::new() }
}

/// Its thread ends with the test's process.
fn start(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Some(tls) = tls else { return http2(stream).await };
                    // Clients that do not trust it leave in the middle.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => http2(stream).await,
                        _ => http1(stream).await,
                    }
                });
            }
        });
    });
    address
}

async fn http1(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut seen = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut seen).await {
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}

/// `/reset` ends the stream with an error, `/gone` the connection without a word, anything else is answered.
async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        match request.uri().path() {
            "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
            "/gone" => return,
            _ => {
                let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
                sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
            }
        }
    }
}
