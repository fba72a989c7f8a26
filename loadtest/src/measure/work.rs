//! What the lanes of one thread share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Plan;
use super::book::Book;
use super::clock::Lane;
use super::draw::{Draw, Lots};
use super::fault::Fault;
use super::pace::Pacer;
use super::request::Wired;
use crate::load::FailureKind;

/// A request that the generator itself sends later than this is counted as late.
const LATE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Work {
    pub(super) plan: Arc<Plan>,
    pub(super) pacer: Rc<Pacer>,
    pub(super) book: RefCell<Book>,
    lots: Lots,
    kept: Vec<Wired>,
    closing: Vec<Wired>,
}

impl Work {
    pub(super) fn new(plan: Arc<Plan>, pacer: Rc<Pacer>, book: Book, seed: u64) -> Rc<Self> {
        let wired = |close| plan.requests.iter().map(|shot| shot.wired(&plan, close)).collect();
        let weights = plan.requests.iter().map(|shot| shot.weight).collect();
        let lots = Lots::new(plan.new_connections, weights, seed);
        let (kept, closing) = (wired(false), wired(true));
        Rc::new(Self { plan, pacer, book: RefCell::new(book), lots, kept, closing })
    }

    /// What the next request is.
    pub(super) fn draw(&self) -> Draw {
        self.lots.draw()
    }

    pub(super) fn request(&self, draw: Draw) -> &Wired {
        if draw.new_connection { &self.closing[draw.shot] } else { &self.kept[draw.shot] }
    }

    /// Does `exchange` for the request due then, in the time it has.
    pub(super) async fn within(
        &self,
        lane: &Lane,
        due: Instant,
        exchange: impl Future<Output = Result<u16, Fault>>,
    ) -> Result<u16, Fault> {
        let deadline = due + self.plan.timeout;
        if self.pacer.is_open() {
            let now = Instant::now();
            let mut book = self.book.borrow_mut();
            book.queued += u64::from(book.is_open(due) && now.saturating_duration_since(due) > LATE);
            if deadline <= now {
                return Err(Fault::new(FailureKind::Timeout, "no connection was free in time"));
            }
        }
        lane.begin(deadline);
        let result = lane.within(exchange).await;
        lane.end();
        result
    }

    /// Whether an answer with this status is one that was expected.
    pub(super) fn judge(&self, status: u16) -> Result<u16, Fault> {
        if self.plan.expected.contains(&status) { Ok(status) } else { Err(Fault::status(status)) }
    }

    /// Counts a request.
    pub(super) async fn ended(&self, due: Instant, ended: Instant, result: &Result<u16, Fault>) {
        self.book.borrow_mut().ended(due, ended, result);
        let refused = result.as_ref().is_err_and(|fault| {
            matches!(fault.kind, FailureKind::ConnectRefused | FailureKind::ConnectFailed)
        });
        if refused && !self.pacer.is_open() {
            // It fails at once: without a pause the loop would only measure itself.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
