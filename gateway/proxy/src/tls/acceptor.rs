//! How handshakes are made: versions, protocols, session tickets.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::certificate::ServedCertificate;

/// HTTP/2 and HTTP/1.1, in the order of our liking.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

/// Session tickets that a TLS 1.3 client gets with each handshake. One lets it come back; each costs 200 bytes and an
/// encryption, and a client that opens several connections at once gets one with each of them.
const TICKETS: usize = 1;

/// What makes an [`Acceptor`] for each worker. They share the certificate, and the keys of the session tickets, so that a
/// session begun at one worker is resumed at any other.
pub(crate) struct Acceptors {
    certificate: ServedCertificate,
    tickets: Arc<dyn ProducesTickets>,
}

/// Makes the handshakes of one worker.
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptors {
    /// Shows this certificate.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub(crate) fn new(certificate: ServedCertificate) -> Result<Self, rustls::Error> {
        Ok(Self { certificate, tickets: ring::Ticketer::new()? })
    }

    /// One for a worker: what it counts references with is in no other worker's cache.
    ///
    /// # Errors
    /// If the versions and the cipher suites do not go together, which is an error in this file.
    pub(crate) fn acceptor(&self) -> Result<Acceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.certificate.clone()));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        config.ticketer = Arc::clone(&self.tickets);
        config.send_tls13_tickets = TICKETS;
        // Tickets are kept by clients; sessions kept here would be memory for each of them.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }
}

impl Acceptor {
    /// Begins a handshake. Dropping the future closes the connection.
    pub(crate) fn accept(&self, socket: TcpStream) -> Accept<TcpStream> {
        self.0.accept(socket)
    }
}

/// Whether both sides have agreed on HTTP/2.
pub(crate) fn is_http2(protocol: Option<&[u8]>) -> bool {
    protocol == Some(HTTP2)
}
