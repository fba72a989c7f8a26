//! The streams of one connection, run by the connection's task.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

use super::stream::Inbox;
use crate::http2::connection::Asked;

/// So many places are kept while no stream is open.
const KEPT: usize = 4;

/// Futures that one task runs, each polled only when it was woken itself, or when it is told to. Their places are
/// numbered by the connection, and each answers one request after the other.
pub(super) struct Streams<F, M> {
    places: Vec<Place<F>>,
    /// Makes the future of one more place.
    make: M,
    /// Places with a request that nobody has begun with.
    fresh: Vec<usize>,
    woken: Arc<Woken>,
    /// Wakes the connection, which is no stream.
    pub(super) connection: Waker,
}

struct Place<F> {
    future: Pin<Box<F>>,
    inbox: Rc<Inbox>,
    waker: Waker,
}

/// What was woken. Wakers must be fit to be used on any thread, though these are woken on one.
#[derive(Debug)]
struct Woken {
    connection: AtomicBool,
    /// A bit for each place.
    places: Box<[AtomicU64]>,
    /// Whether the task knows that there is something to do: it runs, or it was woken.
    told: AtomicBool,
    task: AtomicWaker,
}

#[derive(Debug)]
struct ConnectionWaker(Arc<Woken>);

#[derive(Debug)]
struct PlaceWaker {
    woken: Arc<Woken>,
    place: usize,
}

// === impl Streams ===

impl<F, M> Streams<F, M>
where
    F: Future<Output = ()>,
    M: Fn(Rc<Inbox>) -> F,
{
    /// Room for streams, in as many places, whose futures are made like this.
    pub(super) fn new(places: usize, make: M) -> Self {
        let woken = Arc::new(Woken {
            connection: AtomicBool::new(true),
            places: (0..places.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            told: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        let connection = Waker::from(Arc::new(ConnectionWaker(Arc::clone(&woken))));
        Self { places: Vec::new(), make, fresh: Vec::new(), woken, connection }
    }

    /// A turn of the task begins.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        self.woken.told.store(true, SeqCst);
        self.woken.task.register(cx.waker());
    }

    /// A turn ends. What was woken meanwhile, and not polled since, gets another, and so does `more`.
    pub(super) fn end(&self, cx: &Context<'_>, more: bool) {
        let woken = &self.woken;
        woken.told.store(false, SeqCst);
        let waits =
            || woken.connection.load(SeqCst) || woken.places.iter().any(|bits| bits.load(SeqCst) != 0);
        if (more || waits()) && !woken.told.swap(true, SeqCst) {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether there are more places than an idle connection needs.
    pub(super) fn are_many(&self) -> bool {
        self.places.len() > KEPT
    }

    /// Gives up places that an idle connection does not need.
    pub(super) fn release(&mut self) {
        self.places.truncate(KEPT);
    }

    /// Whether the connection was woken since this was last asked.
    pub(super) fn take_connection(&self) -> bool {
        self.woken.connection.swap(false, SeqCst)
    }

    /// One more request, for this place; [`Streams::poll_fresh`] begins with it.
    pub(super) fn insert(&mut self, asked: Asked) {
        let place = asked.place;
        while self.places.len() <= place {
            self.add_place();
        }
        if let Some(slot) = self.places.get(place) {
            slot.inbox.put(asked);
            self.fresh.push(place);
        }
    }

    /// Polls the streams that are new.
    pub(super) fn poll_fresh(&mut self) {
        while let Some(place) = self.fresh.pop() {
            self.poll(place);
        }
    }

    /// Polls the streams that were woken.
    pub(super) fn poll_woken(&mut self) {
        // All words: places that were given up may still be woken, and what nobody takes would be woken forever.
        for word in 0..self.woken.places.len() {
            let Some(mut bits) = self.woken.take(word) else { return };
            while bits != 0 {
                self.poll(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Polls what is at this place.
    pub(super) fn poll(&mut self, place: usize) {
        if let Some(Place { future, waker, .. }) = self.places.get_mut(place) {
            // One that waits for a request may still be woken. None ends by itself.
            let _pending = future.as_mut().poll(&mut Context::from_waker(waker));
        }
    }

    fn add_place(&mut self) {
        let place = self.places.len();
        let waker = Waker::from(Arc::new(PlaceWaker { woken: Arc::clone(&self.woken), place }));
        let inbox = Rc::new(Inbox::default());
        let future = Box::pin((self.make)(Rc::clone(&inbox)));
        self.places.push(Place { future, inbox, waker });
    }
}

// === impl Woken ===

impl Woken {
    fn take(&self, word: usize) -> Option<u64> {
        let bits = self.places.get(word)?;
        // Most are not woken, and looking is cheaper than taking.
        Some(if bits.load(SeqCst) == 0 { 0 } else { bits.swap(0, SeqCst) })
    }

    fn tell(&self) {
        if !self.told.swap(true, SeqCst) {
            self.task.wake();
        }
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.connection.store(true, SeqCst);
        self.0.tell();
    }
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(bits) = self.woken.places.get(self.place / 64) {
            bits.fetch_or(1 << (self.place % 64), SeqCst);
        }
        self.woken.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::error::{Failure, Reason};

    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A body that was waited for wakes its place when its stream ends, which is when an idle connection gives up its
    /// places.
    #[test]
    fn a_place_that_is_woken_after_it_was_given_up_keeps_no_connection_busy() {
        let mut streams = Streams::new(200, |_inbox| pending());
        let head = || Err(Failure::new(Reason::BadRequest, "nobody asks"));
        for place in 0..200 {
            streams.insert(Asked { place, stream: 1, head: head(), body: None });
        }
        streams.poll_fresh();
        let wakers: Vec<_> = streams.places.iter().map(|place| place.waker.clone()).collect();
        let task = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let turn = |streams: &mut Streams<_, _>| {
            streams.begin(&cx);
            streams.take_connection();
            streams.poll_woken();
            streams.end(&cx, false);
            task.0.swap(0, SeqCst)
        };
        streams.release();
        assert_eq!(turn(&mut streams), 0);
        for waker in wakers {
            waker.wake();
        }
        assert_eq!(task.0.swap(0, SeqCst), 1);
        assert_eq!(turn(&mut streams), 0, "nothing is left to do");
    }
}
