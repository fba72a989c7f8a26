//! Why a handshake came to nothing: a closed set of words, a metric label.

use std::io;

/// Why a client did not get as far as a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// It did not finish in the time that the head of a request may take.
    Timeout,
    /// The client went away half-way, as a check does that only connects.
    Closed,
    /// What it sent is no TLS: plain HTTP, most likely.
    NotTls,
    /// It knows no version, cipher, key exchange or protocol that is served here.
    Incompatible,
    /// It refused, most often because it does not trust the certificate.
    ClientAlert,
    /// Anything else: messages out of order, wrong signatures.
    Other,
}

impl HandshakeFailure {
    /// Every one, in the order of their numbers.
    pub(crate) const ALL: [Self; 6] =
        [Self::Timeout, Self::Closed, Self::NotTls, Self::Incompatible, Self::ClientAlert, Self::Other];

    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::ClientAlert => "client_alert",
            Self::Other => "other",
        }
    }

    /// What a handshake's error means.
    pub(crate) fn of(error: &io::Error) -> Self {
        use rustls::Error as Tls;
        let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Tls>()) else {
            return Self::Closed;
        };
        match cause {
            Tls::InvalidMessage(_) => Self::NotTls,
            Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol => Self::Incompatible,
            Tls::AlertReceived(_) => Self::ClientAlert,
            _ => Self::Other,
        }
    }
}
