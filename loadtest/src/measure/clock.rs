//! The time that a request may take, without a timer for each.
//!
//! A timer per request costs more than the rest of what the runtime does for it. Here each lane (see
//! [`Lane`]) notes when its request has to be over; one task looks at all lanes every now and then and wakes those whose
//! time is up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::{Fault, Step};

/// What sends one request at a time: a connection, or a stream of one.
#[derive(Debug)]
pub(super) struct Lane {
    deadline: Cell<Option<Instant>>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    step: Cell<Step>,
}

impl Lane {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            deadline: Cell::new(None),
            over: Cell::new(false),
            waker: RefCell::new(None),
            step: Cell::new(Step::Connecting),
        })
    }

    /// A request begins that has to end by then.
    pub(super) fn begin(&self, deadline: Instant) {
        self.deadline.set(Some(deadline));
        self.over.set(false);
        self.step.set(Step::Connecting);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.deadline.set(None);
    }

    /// How far it has come, for the one that runs out of time.
    pub(super) fn step(&self, step: Step) {
        self.step.set(step);
    }

    /// Waits for `work`, but not beyond the deadline.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if self.over.get() => Poll::Ready(Err(self.step.get().timed_out())),
            Poll::Pending => {
                let mut waker = self.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            ready @ Poll::Ready(_) => ready,
        })
        .await
    }

    fn look(&self, now: Instant) {
        if self.deadline.get().is_some_and(|deadline| deadline <= now)
            && !self.over.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

/// Ends what takes too long, for ever; a request may take up to a quarter longer than it may, at most 50 ms.
pub(super) async fn keep_time(lanes: Vec<Rc<Lane>>, timeout: Duration) {
    let every = (timeout / 4).clamp(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        tokio::time::sleep(every).await;
        let now = Instant::now();
        for lane in &lanes {
            lane.look(now);
        }
    }
}
