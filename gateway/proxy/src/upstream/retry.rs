//! Whether a failed request is tried again.
//!
//! The rule, and the reason for each half:
//!
//! - **(a)** if no byte of the request was written, any request is tried again: the endpoint cannot have seen it.
//! - **(b)** if the connection died before the first byte of the response, a request of an idempotent method (RFC 9110
//!   section 9.2.2) without a body is tried again: doing it twice is the same as doing it once.
//!
//! Never after a time-out (the endpoint may be at work, and more load is what it needs least), never after a byte of a
//! response, at most `max_retries` times, each time to another endpoint while there is one, and within the cluster's
//! retry budget. A refused connection leads to an endpoint that has not been tried without counting as one of those
//! times: it costs next to nothing, and when most pods of a Service go at once, two retries are soon used up on the dead
//! ones. Bodies are not kept for a retry. So one race is left: the endpoint closes an idle connection while a
//! `POST` is on its way; `pool` makes it small, and what remains is answered with 502 rather than sent twice.

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, response};

use super::attempt::{Answered, Broken, Progress, attempt};
use super::connection::Connection;
use super::trial::try_out;
use crate::cluster::{AffinityKey, Cluster, Outcome, Pick, PickContext};
use crate::error::{Failure, Reason};
use crate::http::exchange::Exchange;
use crate::http::outbound::Outbound;
use crate::http::survey::Survey;
use crate::http1::body::BodyReader;

/// Endpoints that one request has been tried on: as many as a request is ever sent to.
#[derive(Default)]
struct Tried {
    ids: [u64; 8],
    count: usize,
    /// How many of the policy's retries have been used.
    retries: u32,
}

/// An attempt that failed and may be followed by another.
struct Failed {
    failure: Failure,
    /// Whether the endpoint refused the connection.
    refused: bool,
}

/// A response's head, and where the rest comes from.
pub(crate) struct Sent {
    pub(super) answered: Answered,
    pub(super) pick: Pick,
}

impl Sent {
    /// The head of the response with what a survey of it found, how its body is read from which connection, and the
    /// endpoint that it counts for.
    pub(crate) fn into_parts(self) -> (response::Parts, Survey, BodyReader, Box<Connection>, Pick) {
        let Self { answered: Answered { head, survey, body, connection }, pick } = self;
        (head, survey, body, connection, pick)
    }
}

/// Sends a request to an endpoint of the cluster, and to others if that fails and may be tried again.
///
/// # Errors
/// How the last attempt failed.
pub(crate) async fn send(
    exchange: &Rc<Exchange>,
    cluster: &Arc<Cluster>,
    affinity: Option<AffinityKey<'_>>,
    request: &Outbound,
) -> Result<Sent, Failure> {
    let worker = exchange.client.worker();
    let has_no_body = !exchange.has_upload();
    let replayable = is_idempotent(&request.method) && has_no_body;
    let copyable = request.method.is_safe() && has_no_body;
    let mut tried = Tried::default();
    let mut failed: Option<Failed> = None;
    loop {
        let now = worker.clock.now();
        let context = PickContext { now, affinity, tried: tried.as_slice(), copyable };
        let mut pick = worker.balancers.borrow_mut().pick(cluster, &context).map_err(|_| no_endpoints())?;
        let fresh = failed.is_some();
        if let Some(failed) = failed {
            tried.allow(failed, exchange, &pick)?;
        }
        begin(exchange, &pick);
        if let Some(trial) = pick.take_trial() {
            try_out(worker, trial, request.clone());
        }
        let broken = match attempt(exchange, &pick, request, replayable, fresh).await {
            Ok(answered) => {
                let then = worker.clock.now();
                pick.record(Outcome::Answered(answered.head.status), then);
                exchange.note(|record| record.upstream = Some((now, then)));
                return Ok(Sent { answered, pick });
            }
            Err(broken) => broken,
        };
        if let Some(outcome) = broken.outcome {
            pick.record(outcome, worker.clock.now());
        }
        let Broken { failure, outcome, progress } = broken;
        let again = may_follow(exchange, progress, replayable && tried.has_retries(&pick));
        if !again || !tried.push(&pick) {
            return Err(failure);
        }
        failed = Some(Failed { failure, refused: outcome == Some(Outcome::ConnectFailed) });
    }
}

/// Whether the rule lets another attempt follow; `may_repeat` says that a request is the same done twice.
fn may_follow(exchange: &Exchange, progress: Progress, may_repeat: bool) -> bool {
    match progress {
        // A part of its body that was read is not kept.
        Progress::NothingWritten => !exchange.upload_was_touched(),
        Progress::DiedUnanswered => may_repeat,
        Progress::Final => false,
    }
}

fn begin(exchange: &Exchange, pick: &Pick) {
    exchange.limit(&pick.policy().timeouts);
    exchange.note(|record| {
        record.attempts += 1;
        record.endpoint = Some(pick.endpoint().address());
    });
}

fn no_endpoints() -> Failure {
    Failure::new(Reason::NoEndpoints, "the service has no endpoint that could answer")
}

fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

impl Tried {
    fn as_slice(&self) -> &[u64] {
        &self.ids[..self.count]
    }

    fn has_retries(&self, pick: &Pick) -> bool {
        self.retries < pick.policy().retry.max_retries
    }

    /// Whether another attempt may follow the one at this endpoint, as far as the endpoints tell.
    fn push(&mut self, pick: &Pick) -> bool {
        let retries_are_off = pick.policy().retry.max_retries == 0;
        let Some(slot) = self.ids.get_mut(self.count).filter(|_| !retries_are_off) else { return false };
        *slot = pick.endpoint().id();
        self.count += 1;
        true
    }

    /// Takes one retry, at the endpoint picked for it, from the policy's number and from the cluster's budget.
    fn allow(&mut self, before: Failed, exchange: &Exchange, pick: &Pick) -> Result<(), Failure> {
        let is_free = before.refused && !self.as_slice().contains(&pick.endpoint().id());
        if !is_free {
            if !self.has_retries(pick) {
                return Err(before.failure);
            }
            self.retries += 1;
        }
        let worker = exchange.client.worker();
        if worker.balancers.borrow_mut().allow_retry(pick.cluster(), worker.clock.now()) {
            worker.metrics.retries.one();
            Ok(())
        } else {
            worker.metrics.retries_denied.one();
            Err(before.failure)
        }
    }
}
