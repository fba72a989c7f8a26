//! A copy of a request, sent to an endpoint whose ejection is over to see whether it works again.
//!
//! The client's own request goes to an endpoint that is known to work, so a hung endpoint costs nobody its time-out once
//! it is ejected, however often it is tried. Only requests that are safe to send twice are copied.

use std::rc::Rc;

use http::Request;
use http::request::Parts;
use tokio::time::timeout;

use super::attempt::name_host;
use super::connect::{ConnectError, Connection, connect};
use crate::cluster::{Outcome, Pick};
use crate::http::body::RequestBody;
use crate::worker::Worker;

/// Tries the picked endpoint in the background. The head of its answer decides; the connection is not kept.
pub(super) fn try_out(worker: &Rc<Worker>, mut pick: Pick, mut parts: Parts) {
    let worker = Rc::clone(worker);
    name_host(&mut parts, &pick);
    tokio::task::spawn_local(async move {
        if let Some(outcome) = outcome(&worker, &pick, parts).await {
            tracing::debug!(endpoint = %pick.endpoint().address(), ?outcome, "an ejected endpoint was tried");
            pick.record(outcome, worker.clock.now());
        }
    });
}

/// What the trial says of the endpoint; nothing, where this side could not make it.
async fn outcome(worker: &Rc<Worker>, pick: &Pick, parts: Parts) -> Option<Outcome> {
    let timeouts = &pick.policy().timeouts;
    match connect(worker, pick.endpoint(), timeouts.connect).await {
        Ok(connection) => {
            connection.wire.await_head(worker.config().max_head_bytes);
            let answer = timeout(timeouts.response_header, ask(connection, parts)).await;
            Some(answer.unwrap_or(Outcome::TimedOut))
        }
        Err(ConnectError::TimedOut) => Some(Outcome::ConnectTimedOut),
        Err(ConnectError::Refused(_)) => Some(Outcome::ConnectFailed),
        Err(ConnectError::Exhausted(_)) => None,
    }
}

async fn ask(mut connection: Connection, parts: Parts) -> Outcome {
    let request = Request::from_parts(parts, RequestBody(None));
    match connection.sender.try_send_request(request).await {
        Ok(response) => Outcome::Answered(response.status()),
        Err(_) => Outcome::Reset,
    }
}
