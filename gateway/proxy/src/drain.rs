//! How the proxy goes away without losing a request.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::error::Reason;
use crate::worker::Worker;

/// After the second signal, this long is left for what is in flight.
pub(crate) const HURRY: Duration = Duration::from_secs(1);

/// What became of the connections and requests when the proxy went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainReport {
    /// Connections that were open when closing began.
    pub connections: usize,
    /// Requests that were in flight when closing began.
    pub in_flight: usize,
    /// Requests that were cut off because they did not finish in time.
    pub aborted: usize,
    /// From the call to the end.
    pub took: Duration,
}

/// One worker's part of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerReport {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) aborted: usize,
}

/// A worker that is finishing. Its sockets are closed or just being closed; responses ask for their connection to be closed.
pub(crate) struct Draining {
    deadline: watch::Receiver<Instant>,
    done: oneshot::Sender<WorkerReport>,
    report: WorkerReport,
}

impl Draining {
    /// Begins, and counts what there is, before the worker closes its sockets.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        deadline: watch::Receiver<Instant>,
        done: oneshot::Sender<WorkerReport>,
    ) -> Self {
        let connections = worker.clients.borrow().len();
        Self {
            deadline,
            done,
            report: WorkerReport { connections, in_flight: in_flight(worker), aborted: 0 },
        }
    }

    /// Closes what may be closed now. Tells whether all is done, or the time is over; what is in flight then is cut
    /// off, with the reason in its record.
    pub(crate) fn is_done(&mut self, worker: &Worker) -> bool {
        let now = Instant::now();
        if worker.clients.borrow().len() == 0 {
            return true;
        }
        if now >= *self.deadline.borrow() {
            self.report.aborted = in_flight(worker);
            for exchange in worker.exchanges.borrow().iter() {
                exchange.fail(Reason::Draining);
            }
            return true;
        }
        let busy = worker.exchanges.borrow().len() > 0;
        let closing_since = worker.closing_since().unwrap_or(now);
        for client in worker.clients.borrow().iter() {
            client.drain(now, closing_since, busy);
        }
        false
    }

    /// Tells what became of everything.
    pub(crate) fn finish(self) {
        // The one who asked may have given up.
        self.done.send(self.report).ok();
    }
}

fn in_flight(worker: &Worker) -> usize {
    worker.clients.borrow().iter().map(|client| client.in_flight()).sum()
}
