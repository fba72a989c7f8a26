//! When requests are sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// The finest step of the open loop: requests due within it leave together, the first of them late by so much at most.
const STEP: Duration = Duration::from_micros(50);

/// Hands out the right to send, to the lanes of one thread.
#[derive(Debug)]
pub(super) struct Pacer {
    pub(super) start: Instant,
    /// Requests due at or after this are not sent.
    end: Option<Instant>,
    /// Requests a second in the open loop.
    rate: Option<f64>,
    count: Option<u64>,
    stop: Arc<AtomicBool>,
    next: Cell<u64>,
    waiting: RefCell<Queue>,
}

/// Lanes with nothing to send yet, the one that waits longest first.
///
/// A task may be polled although no one called it, so each lane has one place at most, and gives it up when it gets
/// something to send otherwise: a call to a lane that is busy would be lost, and with it the moment of a request.
#[derive(Debug, Default)]
struct Queue {
    places: VecDeque<Option<Waker>>,
    /// The number of the first place.
    first: u64,
}

impl Pacer {
    pub(super) fn new(
        start: Instant,
        end: Option<Instant>,
        rate: Option<f64>,
        count: Option<u64>,
        stop: Arc<AtomicBool>,
    ) -> Rc<Self> {
        let (next, waiting) = (Cell::new(0), RefCell::default());
        Rc::new(Self { start, end, rate, count, stop, next, waiting })
    }

    /// Whether the latency runs from due times that do not depend on the answers.
    pub(super) fn is_open(&self) -> bool {
        self.rate.is_some()
    }

    /// Waits for the next request's turn; gives when it is due, nothing if no more are sent. In the closed loop it is due
    /// at once, and `now` is the time.
    pub(super) async fn next(&self, now: Instant) -> Option<Instant> {
        if !self.is_open() {
            return self.claim(now);
        }
        let mut place = None;
        poll_fn(|cx| {
            let now = Instant::now();
            let mut waiting = self.waiting.borrow_mut();
            match self.due(self.next.get()) {
                due if due <= now || !self.allows(due) => {
                    waiting.leave(place);
                    Poll::Ready(self.claim(due))
                }
                _ => {
                    place = Some(waiting.wait(place, cx.waker()));
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Wakes lanes as requests become due, until no more are sent.
    ///
    /// # Errors
    /// If the kernel gives no timer.
    pub(super) async fn tick(&self) -> std::io::Result<()> {
        let timer = timer()?;
        loop {
            let now = Instant::now();
            let next = self.due(self.next.get());
            if !self.allows(next) {
                break;
            }
            self.wake_due(now);
            let after = self.due(self.next.get() + self.ready(now));
            // The stop is looked at now and then also when next to nothing is sent.
            let sleep = after.saturating_duration_since(now).clamp(STEP, Duration::from_millis(20));
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) },
            };
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
            // Setting it again takes what had come.
            timer.readable().await?.clear_ready();
        }
        let waiting = self.waiting.take();
        waiting.places.into_iter().flatten().for_each(Waker::wake);
        Ok(())
    }

    fn claim(&self, due: Instant) -> Option<Instant> {
        self.allows(due).then(|| {
            self.next.set(self.next.get() + 1);
            due
        })
    }

    /// Whether another request, due then, is to be sent.
    fn allows(&self, due: Instant) -> bool {
        self.end.is_none_or(|end| due < end)
            && self.count.is_none_or(|count| self.next.get() < count)
            && !self.stop.load(Ordering::Relaxed)
    }

    fn due(&self, number: u64) -> Instant {
        self.rate.map_or(self.start, |rate| self.start + Duration::from_secs_f64(number as f64 / rate))
    }

    /// How many more requests are due by now.
    fn ready(&self, now: Instant) -> u64 {
        let rate = self.rate.unwrap_or(0.0);
        let due = (now.saturating_duration_since(self.start).as_secs_f64() * rate) as u64 + 1;
        due.saturating_sub(self.next.get())
    }

    fn wake_due(&self, now: Instant) {
        let mut waiting = self.waiting.borrow_mut();
        for _ in 0..self.ready(now) {
            match waiting.call() {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
    }
}

/// A timer of the kernel: those of the runtime count in milliseconds.
fn timer() -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    #[allow(
        deprecated,
        reason = "it is for types that may close or change their descriptor, which an OwnedFd does not; what replaces it \
                  is unsafe"
    )]
    AsyncFd::new(timer)
}

impl Queue {
    /// Waits in this place if it still exists, else in a new one at the end; gives its number.
    fn wait(&mut self, place: Option<u64>, waker: &Waker) -> u64 {
        if let Some(number) = place
            && let Some(held) = self.place(number)
        {
            *held = Some(waker.clone());
            return number;
        }
        self.places.push_back(Some(waker.clone()));
        self.first + self.places.len() as u64 - 1
    }

    /// Gives up a place, if it still exists.
    fn leave(&mut self, place: Option<u64>) {
        if let Some(held) = place.and_then(|number| self.place(number)) {
            *held = None;
        }
    }

    /// The lane that has waited longest, which gives up its place.
    fn call(&mut self) -> Option<Waker> {
        while let Some(held) = self.places.pop_front() {
            self.first += 1;
            if held.is_some() {
                return held;
            }
        }
        None
    }

    fn place(&mut self, number: u64) -> Option<&mut Option<Waker>> {
        let index = number.checked_sub(self.first)?;
        self.places.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Called(AtomicUsize);

    impl Wake for Called {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_lane_that_waits_is_called_once_and_one_that_left_is_not() {
        let calls: Vec<Arc<Called>> = (0..3).map(|_| Arc::default()).collect();
        let wakers: Vec<Waker> = calls.iter().cloned().map(Waker::from).collect();
        let mut queue = Queue::default();
        let first = queue.wait(None, &wakers[0]);
        let second = queue.wait(None, &wakers[1]);
        assert_eq!(queue.wait(Some(first), &wakers[0]), first, "polled again, it keeps its place");
        queue.leave(Some(first));
        queue.call().unwrap().wake();
        queue.leave(Some(second));
        let third = queue.wait(None, &wakers[2]);
        assert_eq!(queue.wait(Some(third), &wakers[2]), third);
        queue.call().unwrap().wake();
        assert!(queue.call().is_none());
        let called: Vec<_> = calls.iter().map(|called| called.0.load(Ordering::Relaxed)).collect();
        assert_eq!(called, [0, 1, 1]);
    }
}
