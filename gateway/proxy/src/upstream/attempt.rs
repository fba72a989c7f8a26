//! One try to get a response from one endpoint.
//!
//! Interim responses (1xx) end here: clients get none but the 100 (Continue) that hyper sends by itself. A 103 (Early Hints) is
//! lost, which costs its client time and nothing else; a 101 that nobody asked for is an error.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use http::response;

use super::connect::{ConnectError, connect};
use super::connection::Connection;
use super::leg::LegBroken;
use crate::cluster::{Outcome, Pick};
use crate::error::{Failure, Reason};
use crate::http::exchange::Exchange;
use crate::http::outbound::Outbound;
use crate::http::survey::Survey;
use crate::http1::body::BodyReader;

/// Below this a response time-out is kept to the millisecond; above it the sweep's grain does not matter.
const EXACT_BELOW: Duration = Duration::from_secs(2);

/// A head of a response, its body to come, and the connection that it comes over.
pub(super) struct Answered {
    pub(super) head: response::Parts,
    /// Of the head as it came.
    pub(super) survey: Survey,
    pub(super) body: BodyReader,
    pub(super) connection: Box<Connection>,
}

/// An attempt that failed.
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// What it says of the endpoint; nothing, where the fault is not the endpoint's.
    pub(super) outcome: Option<Outcome>,
    /// How far the request came.
    pub(super) progress: Progress,
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
    exchange: &Exchange,
    pick: &Pick,
    request: &Outbound,
    replayable: bool,
    fresh: bool,
) -> Result<Answered, Broken> {
    let (mut connection, reused) = connection(exchange, pick, replayable, fresh).await?;
    let has_body = exchange.has_upload();
    if connection.begin(request, pick.endpoint(), has_body).is_err() {
        return Err(final_failure(Reason::BadRequest, None));
    }
    exchange.sending();
    let head = exchange.unless_failed(poll_fn(|cx| poll_head(&mut connection, exchange, cx)));
    let response_header = pick.policy().timeouts.response_header;
    let result = if response_header < EXACT_BELOW && !has_body {
        let timed = tokio::time::timeout(response_header, head).await;
        timed.unwrap_or(Err(Reason::ResponseTimeout))
    } else {
        head.await
    };
    exchange.busy();
    let broken = match result {
        Ok(Ok(head)) => {
            let survey = Survey::of(&head.headers);
            match connection.body(&request.method, &head, &survey) {
                Ok(body) => return Ok(Answered { head, survey, body, connection }),
                Err(ambiguous) => LegBroken::Malformed(ambiguous),
            }
        }
        Ok(Err(broken)) => broken,
        Err(reason) => {
            let timed_out = matches!(reason, Reason::ResponseTimeout | Reason::DeadlineExceeded);
            return Err(final_failure(reason, timed_out.then_some(Outcome::TimedOut)));
        }
    };
    Err(classify(&broken, connection.moved(), reused))
}

/// Sends what is to be sent, and reads the head of the response, which may come before all was sent.
fn poll_head(
    connection: &mut Connection,
    exchange: &Exchange,
    cx: &mut Context<'_>,
) -> Poll<Result<response::Parts, LegBroken>> {
    let sent = connection.poll_send(cx, exchange);
    if exchange.failed().is_some() {
        // Told by whoever waits for this.
        return Poll::Pending;
    }
    let head = connection.poll_head(cx);
    if head.is_ready() && sent.is_ready() && !connection.is_sent() {
        // The endpoint takes no more.
        exchange.refuse_upload();
    }
    head
}

/// A connection for the request: an idle one, or a new one. Tells whether it has carried a request before.
async fn connection(
    exchange: &Exchange,
    pick: &Pick,
    replayable: bool,
    fresh: bool,
) -> Result<(Box<Connection>, bool), Broken> {
    let worker = exchange.client.worker();
    let endpoint = pick.endpoint();
    if !fresh && let Some(connection) = worker.pool.take(endpoint, replayable, worker.clock.now()) {
        worker.metrics.upstream_reused.one();
        return Ok((connection, true));
    }
    let opening = connect(worker, endpoint, pick.policy().timeouts.connect);
    match exchange.unless_failed(opening).await {
        Ok(Ok(connection)) => Ok((connection, false)),
        Ok(Err(error)) => Err(unconnected(&error)),
        Err(reason) => Err(final_failure(reason, None)),
    }
}

fn unconnected(error: &ConnectError) -> Broken {
    let (reason, outcome) = match error {
        ConnectError::TimedOut => (Reason::ConnectTimeout, Some(Outcome::ConnectTimedOut)),
        ConnectError::Refused(_) => (Reason::ConnectFailed, Some(Outcome::ConnectFailed)),
        ConnectError::Exhausted(error) => {
            tracing::warn!(%error, "no connection to an endpoint can be opened for want of resources on this side");
            (Reason::ConnectFailed, None)
        }
    };
    Broken { failure: failure(reason), outcome, progress: Progress::NothingWritten }
}

/// What a broken exchange with the endpoint means.
fn classify(broken: &LegBroken, (wrote, read): (bool, bool), reused: bool) -> Broken {
    tracing::trace!(%broken, "an attempt broke");
    // An idle connection that the endpoint closes just now is no sign of ill health.
    let answered = wrote && read;
    let outcome = (!reused || answered).then_some(Outcome::Reset);
    if answered {
        return final_failure(broken.reason(), outcome);
    }
    let progress = if wrote { Progress::DiedUnanswered } else { Progress::NothingWritten };
    Broken { failure: failure(Reason::UpstreamReset), outcome, progress }
}

fn final_failure(reason: Reason, outcome: Option<Outcome>) -> Broken {
    Broken { failure: failure(reason), outcome, progress: Progress::Final }
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
        Reason::BadRequest => "the request does not say clearly where its body ends",
        _ => "the service closed the connection before it answered",
    };
    Failure::new(reason, message)
}
