//! What is known of one client connection while it is open.
//!
//! Two time-outs guard it, and neither has a timer: a connection that is idle between requests, and one that has begun
//! a request and does not finish its head. Who reads from it notes when bytes come in while no request is in flight,
//! which is what tells the two apart; the worker's sweep compares times.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use portolan_model::Protocol;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::accept::Listening;
use super::screen::Screen;
use super::wire::Wire;
use crate::config::LiveConfig;
use crate::error::Reason;
use crate::flushes::Flush;
use crate::http::headers::Peer;
use crate::http::respond;
use crate::http1::request::Limits;
use crate::telemetry::Record;
use crate::tls::HandshakeFailure;
use crate::worker::Worker;

/// How long a client gets to read an answer that was sent before its request was whole.
const LINGER: Duration = Duration::from_secs(2);
/// A connection that has been idle for this long gives back its memory for bytes.
const HOLD: Duration = Duration::from_millis(500);
/// Connections that had a request this recently are worth waiting for when draining: their client is likely to send
/// the next one just now, and would lose it.
const RECENT: Duration = Duration::from_secs(5);
/// When draining, a handshake that has not ended in this time is not waited for. One that makes progress takes a few
/// round trips, and its client has a request.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// One client connection.
pub(crate) struct Client {
    worker: Rc<Worker>,
    pub(crate) listening: Rc<Listening>,
    pub(crate) peer: Peer,
    in_flight: Cell<usize>,
    /// How many requests have ended so far.
    ended: Cell<u64>,
    /// How many of these have failed, and wait for the client to take what it was sent before.
    stuck: Cell<usize>,
    http2: Cell<bool>,
    state: Cell<State>,
    since: Cell<Instant>,
    /// Whether a request was answered before all of it had come.
    unread: Cell<bool>,
    /// Whether a head was refused that waits for the requests before it.
    refusal_waits: Cell<bool>,
    order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
    /// What its bytes come through, as long as that is open.
    wire: RefCell<Weak<Wire>>,
    /// Where the worker's sweep finds it.
    place: Cell<usize>,
}

/// What a connection is doing while no request is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The handshake of TLS.
    Handshake,
    /// Nothing, since its last response.
    Idle,
    /// A head has begun, or the connection is new.
    Head,
    /// Reading what a client still sends after it was answered, so that the answer is not lost to a reset.
    Lingering,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Finish what is in flight, then close.
    Finish,
    /// The head of a request did not come in time: say so to whoever has sent a part of it, and close.
    TimeOut,
    /// Close now.
    Abort,
}

impl Client {
    /// A connection that has just been accepted; the worker's sweep watches it until it is closed.
    pub(crate) fn register(worker: Rc<Worker>, listening: Rc<Listening>, peer: IpAddr) -> Rc<Self> {
        let peer = Peer::new(peer, listening.listener.protocol, listening.port, &worker.live());
        let state = match listening.listener.protocol {
            Protocol::Http => State::Head,
            Protocol::Https => State::Handshake,
        };
        listening.series.accepted.one();
        let client = Rc::new(Self {
            peer,
            in_flight: Cell::new(0),
            ended: Cell::new(0),
            stuck: Cell::new(0),
            http2: Cell::new(false),
            state: Cell::new(state),
            since: Cell::new(worker.clock.now()),
            unread: Cell::new(false),
            refusal_waits: Cell::new(false),
            order: Cell::new(None),
            waker: RefCell::new(None),
            wire: RefCell::default(),
            place: Cell::new(0),
            listening,
            worker,
        });
        let place = client.worker.clients.borrow_mut().insert(Rc::clone(&client));
        client.place.set(place);
        client
    }

    /// The connection is closed.
    pub(crate) fn closed(&self) {
        self.listening.series.closed.one();
        self.worker.clients.borrow_mut().remove(self.place.get());
    }

    /// What its bytes come through.
    pub(super) fn comes_through(&self, wire: &Rc<Wire>) {
        self.wire.replace(Rc::downgrade(wire));
    }

    /// The worker that serves it.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Whether it is to close with its next response.
    pub(crate) fn is_closing(&self) -> bool {
        self.worker.is_closing() || self.listening.closing.get()
    }

    /// How large the heads of its requests may be.
    pub(super) fn head_limits(&self) -> Limits {
        let worker = &self.worker;
        Limits { max_bytes: worker.config().max_head_bytes, max_fields: worker.live().max_header_fields }
    }

    /// How many of its requests have ended.
    pub(super) fn ended(&self) -> u64 {
        self.ended.get()
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// A request's head is in.
    pub(crate) fn request_began(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A response has been handed over whole, or its exchange broke; `read` tells whether the request was whole,
    /// `stuck` whether [`Client::stuck`] has been told of it.
    pub(crate) fn request_ended(&self, read: bool, stuck: bool) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.ended.set(self.ended.get() + 1);
        self.stuck.set(self.stuck.get() - usize::from(stuck));
        if !read {
            self.unread.set(true);
        }
        self.enter(State::Idle);
        if self.refusal_waits.replace(false) {
            self.wake();
        }
    }

    /// A head of it did not become a request, and was answered without one.
    pub(super) fn refused(&self, reason: Reason) {
        Record::refused(Rc::clone(&self.worker), self.peer.address, respond::status(reason), reason);
    }

    /// The handshake is done; `http2` tells whether both sides agreed on that.
    pub(super) fn shook_hands(&self, http2: bool) {
        self.http2.set(http2);
        self.enter(State::Head);
    }

    /// Its requests come over HTTP/2.
    pub(crate) fn speaks_http2(&self) {
        self.http2.set(true);
    }

    /// It does not take the response of an exchange that has failed; told at each sweep, and `first` the first time.
    /// With HTTP/2 the other streams may be well, so the connection is closed when none is, or when it has been `long`
    /// enough.
    pub(crate) fn stuck(&self, first: bool, long: bool) {
        self.stuck.set(self.stuck.get() + usize::from(first));
        if long || self.stuck.get() >= self.in_flight.get() {
            self.give(Order::Abort);
        }
    }

    /// Closes it: at once, or when what is in flight is done.
    pub(crate) fn give(&self, order: Order) {
        self.order.set(self.order.get().max(Some(order)));
        self.wake();
    }

    /// Makes the connection's task run.
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Makes the connection's task run, unless this is it.
    pub(super) fn wake_for(&self, cx: &Context<'_>) {
        if self.waker.borrow().as_ref().is_some_and(|waker| !waker.will_wake(cx.waker())) {
            self.wake();
        }
    }

    /// The latest order, once; the connection's task asks whenever it runs.
    pub(super) fn take_order(&self, cx: &Context<'_>) -> Option<Order> {
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
        self.order.take()
    }

    fn enter(&self, state: State) {
        self.state.set(state);
        self.since.set(self.worker.clock.now());
    }

    /// It is to take what it was sent before anything else of it is looked at: that may last, and is no slow head.
    pub(super) fn owes_reading(&self) {
        if self.state.get() == State::Head {
            self.enter(State::Idle);
        }
    }

    /// It has been answered, and what it still sends is read away.
    pub(super) fn lingers(&self) {
        self.enter(State::Lingering);
    }

    /// Closes what has waited for too long; the sweep calls this. A connection that does not go when asked is closed
    /// a little later.
    pub(crate) fn check(&self, now: Instant, live: &LiveConfig) {
        let waited = now.saturating_duration_since(self.since.get());
        if self.http2.get() && self.has_stuck_streams(now, live) {
            self.wake();
        }
        match self.state.get() {
            State::Lingering if waited >= LINGER => self.give(Order::Abort),
            _ if self.in_flight.get() > 0 => {
                if self.is_reset() {
                    self.give(Order::Abort);
                }
            }
            State::Handshake if waited >= live.request_head_timeout => {
                self.listening.series.handshake_failed(HandshakeFailure::Timeout);
                self.give(Order::Abort);
            }
            // Who does not take what is told it.
            State::Head
                if !self.http2.get() && waited >= live.request_head_timeout.saturating_add(LINGER) =>
            {
                self.give(Order::Abort);
            }
            State::Head if !self.http2.get() && waited >= live.request_head_timeout => {
                self.give(Order::TimeOut);
            }
            // An HTTP/2 client may leave the PING unanswered that comes before its end, or a head unfinished.
            State::Idle | State::Head if waited >= live.client_idle_timeout.saturating_add(LINGER) => {
                self.give(Order::Abort);
            }
            State::Idle | State::Head if waited >= live.client_idle_timeout => self.give(Order::Finish),
            State::Idle if waited >= HOLD => self.release(),
            State::Handshake | State::Idle | State::Head | State::Lingering => {}
        }
    }

    fn has_stuck_streams(&self, now: Instant, live: &LiveConfig) -> bool {
        let wire = self.wire.borrow().upgrade();
        wire.is_some_and(|wire| wire.reset_stuck_streams(now, live.client_idle_timeout))
    }

    fn release(&self) {
        if let Some(wire) = self.wire.borrow().upgrade() {
            wire.release();
        }
    }

    /// Closes an idle connection when draining, if it is time: see [`crate::Proxy::drain`]. `busy` tells whether this
    /// worker has requests in flight, `closing_since` when connections began to be closed.
    pub(crate) fn drain(&self, now: Instant, closing_since: Instant, busy: bool) {
        let idle = now.saturating_duration_since(self.since.get());
        let grace_over = now.saturating_duration_since(closing_since) >= RECENT;
        if self.state.get() == State::Handshake {
            if idle >= HANDSHAKE_GRACE {
                self.give(Order::Abort);
            }
            return;
        }
        if self.http2.get() {
            // GOAWAY lets the streams that are open finish; a client that then does not go is not waited for.
            let gone = self.in_flight.get() == 0 && grace_over && idle >= RECENT;
            self.give(if gone { Order::Abort } else { Order::Finish });
            return;
        }
        if self.in_flight.get() > 0 || self.state.get() == State::Lingering {
            return;
        }
        let forgotten = idle >= RECENT && !busy;
        if grace_over || forgotten {
            self.give(Order::Finish);
        }
    }

    /// Asks the kernel whether the client has reset the connection. Who serves it finds out only by reading, and reads
    /// nothing as long as bytes wait that nobody wants yet. A client that has closed its own direction may still read.
    fn is_reset(&self) -> bool {
        let Some(wire) = self.wire.borrow().upgrade() else { return false };
        let stream = wire.stream.borrow();
        !matches!(SockRef::from(stream.socket()).take_error(), Ok(None))
    }

    /// Bytes of it have come.
    pub(super) fn received(&self) {
        if self.in_flight.get() == 0 && self.state.get() == State::Idle {
            self.enter(State::Head);
        }
    }
}

impl Flush for Client {
    /// Writes what the loop has left to the worker.
    fn flush(&self) {
        let Some(wire) = self.wire.borrow().upgrade() else { return };
        // Without one it is about to run, and writes by itself.
        let waker = self.waker.borrow();
        let Some(waker) = &*waker else { return };
        if let Poll::Ready(Err(_)) = wire.poll_left(&mut Context::from_waker(waker)) {
            waker.wake_by_ref();
        }
    }
}

/// A client's connection as hyper sees it: screened and watched.
pub(super) struct ClientIo {
    wire: Rc<Wire>,
    screen: Screen,
    /// What is left of the answer to a head that was refused.
    refusal: Bytes,
    client: Rc<Client>,
    shut_down: bool,
}

impl ClientIo {
    /// Goes on with a connection where the screen is.
    pub(super) fn new(wire: Rc<Wire>, screen: Screen, client: Rc<Client>) -> Self {
        Self { wire, screen, refusal: Bytes::new(), client, shut_down: false }
    }

    /// Writes the answer to a head that was refused, if one was. hyper has sent all that it had by then: it does before
    /// it shuts down.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(failure) = self.screen.take_refusal() {
            self.client.refused(failure.reason);
            self.client.unread.set(true);
            self.refusal = respond::refusal(&failure);
        }
        while !self.refusal.is_empty() {
            let polled = Pin::new(&mut *self.wire.stream.borrow_mut()).poll_write(cx, &self.refusal);
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = (buffer.filled().len(), this.screen.holds());
        let polled = this.screen.poll_read(cx, &mut this.wire.stream.borrow_mut(), buffer, &this.client);
        this.client.refusal_waits.set(polled.is_pending() && this.screen.has_refused());
        if buffer.filled().len() > before.0 || this.screen.holds() > before.1 {
            self.client.received();
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.wire.stream.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.wire.stream.borrow_mut()).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut_down {
            ready!(self.poll_refusal(cx))?;
            ready!(self.wire.poll_shutdown(cx))?;
            self.shut_down = true;
            if self.client.unread.get() {
                self.client.lingers();
            }
        }
        // A socket that is closed with unread bytes sends a reset, and that may overtake the answer.
        if self.client.unread.get() { self.wire.poll_drain(cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}
