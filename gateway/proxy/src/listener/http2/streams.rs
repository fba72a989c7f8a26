//! The streams of one connection, run by the connection's task.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// So many places are kept while no stream is open.
const KEPT: usize = 4;

/// Futures that one task runs, each polled only when it was woken itself.
pub(super) struct Streams<F> {
    places: Vec<Place<F>>,
    /// Places of futures that are done. They are used again, with their memory.
    free: Vec<usize>,
    /// Places whose future has not been polled yet.
    fresh: Vec<usize>,
    woken: Arc<Woken>,
    /// Wakes the connection, which is no stream.
    pub(super) connection: Waker,
}

struct Place<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
}

/// What was woken. Wakers must be fit to be used on any thread, so this is behind a lock, though nobody else takes it.
#[derive(Debug)]
struct Woken(Mutex<State>);

#[derive(Debug)]
struct State {
    connection: bool,
    /// A bit for each place.
    places: Vec<u64>,
    /// Whether the task knows that there is something to do: it runs, or it was woken.
    told: bool,
    task: Waker,
}

#[derive(Debug)]
struct ConnectionWaker(Arc<Woken>);

#[derive(Debug)]
struct PlaceWaker {
    woken: Arc<Woken>,
    place: usize,
}

// === impl Streams ===

impl<F> Default for Streams<F> {
    fn default() -> Self {
        let state = State { connection: true, places: Vec::new(), told: true, task: Waker::noop().clone() };
        let woken = Arc::new(Woken(Mutex::new(state)));
        let connection = Waker::from(Arc::new(ConnectionWaker(Arc::clone(&woken))));
        Self { places: Vec::new(), free: Vec::new(), fresh: Vec::new(), woken, connection }
    }
}

impl<F: Future<Output = ()>> Streams<F> {
    /// A turn of the task begins.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        let mut state = self.woken.lock();
        state.told = true;
        if !state.task.will_wake(cx.waker()) {
            state.task = cx.waker().clone();
        }
    }

    /// A turn ends. What was woken meanwhile, and not polled since, gets another.
    pub(super) fn end(&mut self) {
        if self.free.len() == self.places.len() && self.places.len() > KEPT {
            self.places.truncate(KEPT);
            self.free = (0..KEPT).collect();
        }
        let mut state = self.woken.lock();
        state.told = state.connection || state.places.iter().any(|bits| *bits != 0);
        if state.told {
            state.task.wake_by_ref();
        }
    }

    /// Whether the connection was woken since this was last asked.
    pub(super) fn take_connection(&self) -> bool {
        std::mem::take(&mut self.woken.lock().connection)
    }

    /// One more stream; [`Streams::poll_fresh`] polls it for the first time.
    pub(super) fn insert(&mut self, future: F) {
        let place = self.free.pop().unwrap_or_else(|| self.add_place());
        self.places[place].future.set(Some(future));
        self.fresh.push(place);
    }

    /// Polls the streams that are new.
    pub(super) fn poll_fresh(&mut self) {
        while let Some(place) = self.fresh.pop() {
            self.poll(place);
        }
    }

    /// Polls the streams that were woken.
    pub(super) fn poll_woken(&mut self) {
        for word in 0..self.places.len().div_ceil(64) {
            let mut bits = std::mem::take(&mut self.woken.lock().places[word]);
            while bits != 0 {
                self.poll(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    fn poll(&mut self, place: usize) {
        let Some(Place { future, waker }) = self.places.get_mut(place) else { return };
        // One that is done may still be woken.
        let Some(running) = future.as_mut().as_pin_mut() else { return };
        if running.poll(&mut Context::from_waker(waker)).is_ready() {
            future.set(None);
            self.free.push(place);
        }
    }

    fn add_place(&mut self) -> usize {
        let place = self.places.len();
        let waker = Waker::from(Arc::new(PlaceWaker { woken: Arc::clone(&self.woken), place }));
        self.places.push(Place { future: Box::pin(None), waker });
        self.woken.lock().places.resize(place / 64 + 1, 0);
        place
    }
}

// === impl Woken ===

impl Woken {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, note: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        note(&mut state);
        if !state.told {
            state.told = true;
            state.task.wake_by_ref();
        }
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake(|state| state.connection = true);
    }
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (word, bit) = (self.place / 64, self.place % 64);
        self.woken.wake(|state| {
            if let Some(bits) = state.places.get_mut(word) {
                *bits |= 1 << bit;
            }
        });
    }
}
