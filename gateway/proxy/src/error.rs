//! Why a request failed: one closed set of words, the same in the answer, the access log and the metrics.

use std::borrow::Cow;

/// Why Portolan itself answered, or broke an answer off. Closed and of low cardinality: it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No rule matches the request.
    NoRoute,
    /// The host is a known service's, but the port is none of it.
    UnknownPort,
    /// The target is of a form that this listener does not take (absolute form on the edge).
    TargetForm,
    /// The rule has no backend, or its cluster no endpoint that could answer.
    NoEndpoints,
    /// No connection to an endpoint came about.
    ConnectFailed,
    /// An endpoint did not accept a connection in time.
    ConnectTimeout,
    /// The endpoint closed or reset the connection before its response was whole.
    UpstreamReset,
    /// The endpoint answered something that is not HTTP/1.1.
    UpstreamProtocol,
    /// The head of the response did not come in time.
    ResponseTimeout,
    /// The client did not send the head of its request in time.
    RequestTimeout,
    /// The whole exchange took longer than it may.
    DeadlineExceeded,
    /// No byte of a body moved for too long.
    StreamIdleTimeout,
    /// The request is not valid, or not unambiguous.
    BadRequest,
    /// The head of the request is larger than allowed.
    HeadersTooLarge,
    /// The target of the request is longer than allowed.
    TargetTooLong,
    /// The body of the request is larger than allowed.
    BodyTooLarge,
    /// The method is not served (CONNECT).
    MethodNotAllowed,
    /// A transfer coding that is not known.
    UnknownTransferCoding,
    /// An expectation that is not known.
    ExpectationFailed,
    /// The request has passed here before.
    LoopDetected,
    /// There are as many connections as are allowed.
    ConnectionLimit,
    /// The gateway is going away, and the exchange did not finish in time.
    Draining,
    /// The client went away before the response was whole.
    ClientClosed,
    /// The client's request body broke off.
    ClientReset,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 24] = [
        Self::NoRoute,
        Self::UnknownPort,
        Self::TargetForm,
        Self::NoEndpoints,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::ResponseTimeout,
        Self::RequestTimeout,
        Self::DeadlineExceeded,
        Self::StreamIdleTimeout,
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::TargetTooLong,
        Self::BodyTooLarge,
        Self::MethodNotAllowed,
        Self::UnknownTransferCoding,
        Self::ExpectationFailed,
        Self::LoopDetected,
        Self::ConnectionLimit,
        Self::Draining,
        Self::ClientClosed,
        Self::ClientReset,
    ];

    /// The word in metrics, logs and the `x-portolan-reason` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::UnknownPort => "unknown_port",
            Self::TargetForm => "target_form",
            Self::NoEndpoints => "no_endpoints",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::ResponseTimeout => "response_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::StreamIdleTimeout => "stream_idle_timeout",
            Self::BadRequest => "bad_request",
            Self::HeadersTooLarge => "headers_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::ExpectationFailed => "expectation_failed",
            Self::LoopDetected => "loop_detected",
            Self::ConnectionLimit => "connection_limit",
            Self::Draining => "draining",
            Self::ClientClosed => "client_closed",
            Self::ClientReset => "client_reset",
        }
    }
}

/// A request that failed here: the reason, and a sentence for whoever sent it. The sentence tells what is wrong with
/// the request or which step failed; it never names an endpoint's address or anything else of the inside.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} ({})", reason.as_str())]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// What is wrong and, where the caller can do something, what.
    pub message: Cow<'static, str>,
}

impl Failure {
    /// A failure with a sentence for the caller.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_at_its_number_and_has_a_word_of_its_own() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
