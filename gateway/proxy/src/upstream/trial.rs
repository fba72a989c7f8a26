//! A copy of a request, sent to an endpoint whose ejection is over to see whether it works again.
//!
//! The client's own request goes to an endpoint that is known to work, so a hung endpoint costs nobody its time-out once
//! it is ejected, however often it is tried. Only requests that are safe to send twice are copied.

use std::rc::Rc;

use tokio::time::timeout;

use super::connect::{ConnectError, connect};
use super::connection::Connection;
use crate::cluster::{Outcome, Pick};
use crate::http::outbound::Outbound;
use crate::worker::Worker;

/// Tries the picked endpoint in the background. The head of its answer decides; the connection is not kept.
pub(super) fn try_out(worker: &Rc<Worker>, mut pick: Pick, request: Outbound) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        if let Some(outcome) = outcome(&worker, &pick, request).await {
            tracing::debug!(endpoint = %pick.endpoint().address(), ?outcome, "an ejected endpoint was tried");
            pick.record(outcome, worker.clock.now());
        }
    });
}

/// What the trial says of the endpoint; nothing, where this side could not make it.
async fn outcome(worker: &Rc<Worker>, pick: &Pick, request: Outbound) -> Option<Outcome> {
    let timeouts = &pick.policy().timeouts;
    match connect(worker, pick.endpoint(), timeouts.connect).await {
        Ok(connection) => {
            let answer = timeout(timeouts.response_header, ask(connection, pick, &request)).await;
            Some(answer.unwrap_or(Outcome::TimedOut))
        }
        Err(ConnectError::TimedOut) => Some(Outcome::ConnectTimedOut),
        Err(ConnectError::Refused(_)) => Some(Outcome::ConnectFailed),
        Err(ConnectError::Exhausted(_)) => None,
    }
}

async fn ask(mut connection: Box<Connection>, pick: &Pick, request: &Outbound) -> Outcome {
    match connection.ask(request, pick.endpoint()).await {
        Ok(head) => Outcome::Answered(head.status),
        Err(_) => Outcome::Reset,
    }
}
