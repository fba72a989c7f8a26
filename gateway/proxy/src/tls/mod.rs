//! TLS towards clients: the certificate that is shown ([`certificate`]), how handshakes are made ([`acceptor`]), and why
//! they fail ([`failure`]).

mod acceptor;
mod certificate;
mod failure;

pub(crate) use acceptor::{Acceptor, Acceptors, is_http2};
pub use certificate::{Certificate, CertificateError, ServedCertificate};
pub(crate) use failure::HandshakeFailure;
