//! One try to get a response from one endpoint.
//!
//! Interim responses (1xx) end here: hyper's server has no way to send one but its own 100 (Continue). A 103 (Early
//! Hints) is lost, which costs its client time and nothing else; a 101 that nobody asked for is an error.

use std::rc::Rc;
use std::time::Duration;

use http::header::Entry;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::connect::{ConnectError, connect};
use super::pool::Checkout;
use crate::cluster::{Outcome, Pick};
use crate::error::{Failure, Reason};
use crate::http::body::RequestBody;
use crate::http::exchange::{Exchange, Upload};

/// Below this a response time-out is kept to the millisecond; above it the sweep's grain does not matter.
const EXACT_BELOW: Duration = Duration::from_secs(2);

/// A head of a response, its body to come, and the connection that it comes over.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) checkout: Checkout,
}

/// An attempt that failed.
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// What it says of the endpoint; nothing, where the fault is not the endpoint's.
    pub(super) outcome: Option<Outcome>,
    /// How far the request came.
    pub(super) progress: Progress,
    /// The request's head, where hyper gave it back.
    pub(super) unsent: Option<Parts>,
}

/// How far a request came before its attempt broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// No byte of it was written.
    NothingWritten,
    /// Some was written, and the connection died before a byte of the response.
    DiedUnanswered,
    /// Anything else: a time-out, bytes that are no response, a client that is gone.
    Final,
}

/// Sends a request to the picked endpoint and waits for the head of the response. Dropping the future closes the
/// connection, so that an endpoint learns at once that nobody waits for it any more.
pub(super) async fn attempt(
    exchange: &Rc<Exchange>,
    pick: &Pick,
    parts: Parts,
    replayable: bool,
    fresh: bool,
) -> Result<Answered, Broken> {
    let (mut checkout, mut parts) = match checkout(exchange, pick, parts, replayable, fresh).await {
        Ok(ready) => ready,
        Err(broken) => return Err(*broken),
    };
    name_host(&mut parts, pick);
    let before = checkout.connection.wire.moved();
    checkout.connection.wire.await_head(exchange.client.worker().config().max_head_bytes);
    exchange.sending();
    let request = Request::from_parts(parts, RequestBody(Some(Rc::clone(exchange))));
    let sent = exchange.unless_failed(checkout.connection.sender.try_send_request(request));
    let response_header = pick.policy().timeouts.response_header;
    let result = if response_header < EXACT_BELOW && exchange.upload_state() == Upload::Done {
        let timed = tokio::time::timeout(response_header, sent).await;
        timed.unwrap_or(Err(Reason::ResponseTimeout))
    } else {
        sent.await
    };
    checkout.connection.wire.head_is_here();
    exchange.busy();
    match result {
        Ok(Ok(response))
            if response.status() == StatusCode::SWITCHING_PROTOCOLS || is_ambiguous(response.headers()) =>
        {
            Err(final_failure(Reason::UpstreamProtocol, Some(Outcome::Reset)))
        }
        Ok(Ok(response)) => Ok(Answered { response, checkout }),
        Ok(Err(error)) => Err(classify(exchange, &checkout, before, error)),
        Err(reason) => {
            let timed_out = matches!(reason, Reason::ResponseTimeout | Reason::DeadlineExceeded);
            Err(final_failure(reason, timed_out.then_some(Outcome::TimedOut)))
        }
    }
}

/// Only an HTTP/1.0 client may leave the host out; HTTP/1.1 must name one.
pub(super) fn name_host(parts: &mut Parts, pick: &Pick) {
    if let Entry::Vacant(host) = parts.headers.entry(header::HOST) {
        host.insert(
            HeaderValue::try_from(pick.endpoint().address().to_string())
                .expect("an address is a field value"),
        );
    }
}

/// Whether readers may differ over where the message ends: a length beside a transfer coding, or a coding other than
/// `chunked` once.
fn is_ambiguous(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return false };
    codings.next().is_some()
        || !first.as_bytes().eq_ignore_ascii_case(b"chunked")
        || headers.contains_key(header::CONTENT_LENGTH)
}

/// A connection for the request: an idle one, or a new one.
async fn checkout(
    exchange: &Rc<Exchange>,
    pick: &Pick,
    parts: Parts,
    replayable: bool,
    fresh: bool,
) -> Result<(Checkout, Parts), Box<Broken>> {
    let worker = exchange.client.worker();
    let endpoint = pick.endpoint();
    if !fresh && let Some(connection) = worker.pool.take(endpoint, replayable) {
        worker.metrics.upstream_reused.one();
        return Ok((Checkout::new(connection, pick, worker, true), parts));
    }
    let opening = connect(worker, endpoint, pick.policy().timeouts.connect);
    match exchange.unless_failed(opening).await {
        Ok(Ok(connection)) => Ok((Checkout::new(connection, pick, worker, false), parts)),
        Ok(Err(error)) => Err(Box::new(unconnected(&error, parts))),
        Err(reason) => Err(Box::new(final_failure(reason, None))),
    }
}

fn unconnected(error: &ConnectError, parts: Parts) -> Broken {
    let (reason, outcome) = match error {
        ConnectError::TimedOut => (Reason::ConnectTimeout, Some(Outcome::ConnectTimedOut)),
        ConnectError::Refused(_) => (Reason::ConnectFailed, Some(Outcome::ConnectFailed)),
        ConnectError::Exhausted(error) => {
            tracing::warn!(%error, "no connection to an endpoint can be opened for want of resources on this side");
            (Reason::ConnectFailed, None)
        }
    };
    Broken { failure: failure(reason), outcome, progress: Progress::NothingWritten, unsent: Some(parts) }
}

/// What a broken exchange with the endpoint means.
fn classify(
    exchange: &Exchange,
    checkout: &Checkout,
    (written_before, read_before): (u64, u64),
    mut error: TrySendError<Request<RequestBody>>,
) -> Broken {
    if let Some(reason) = exchange.failed() {
        return final_failure(reason, None);
    }
    let unsent = error.take_message().map(|request| request.into_parts().0);
    let (written, read) = checkout.connection.wire.moved();
    let nothing_written = unsent.is_some() || written == written_before;
    // An idle connection that the endpoint closes just now is no sign of ill health.
    let outcome = (!checkout.reused || read > read_before).then_some(Outcome::Reset);
    if read > read_before {
        let garbage = checkout.connection.wire.is_flooded()
            || error.error().is_parse()
            || error.error().is_parse_too_large();
        return final_failure(
            if garbage { Reason::UpstreamProtocol } else { Reason::UpstreamReset },
            outcome,
        );
    }
    let progress = if nothing_written { Progress::NothingWritten } else { Progress::DiedUnanswered };
    Broken { failure: failure(Reason::UpstreamReset), outcome, progress, unsent }
}

fn final_failure(reason: Reason, outcome: Option<Outcome>) -> Broken {
    Broken { failure: failure(reason), outcome, progress: Progress::Final, unsent: None }
}

fn failure(reason: Reason) -> Failure {
    let message = match reason {
        Reason::ConnectTimeout => "the service did not accept a connection in time",
        Reason::ConnectFailed => "no connection to the service could be opened",
        Reason::UpstreamProtocol => "the service answered something that is not HTTP/1.1",
        Reason::ResponseTimeout => "the service did not answer in time",
        Reason::DeadlineExceeded => "the request took longer than it may",
        Reason::StreamIdleTimeout => "no byte of the request body came for too long",
        Reason::BodyTooLarge => "the request body is larger than allowed here",
        Reason::ClientReset => "the request body broke off",
        _ => "the service closed the connection before it answered",
    };
    Failure::new(reason, message)
}
