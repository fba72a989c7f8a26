//! A client's connection over HTTP/2, from its preface to its last stream.
//!
//! Its streams are answered by the connection's own task and not by tasks of their own. That costs less for each
//! request, and one turn of the task does everything that has come up since the one before, in this order: streams whose
//! endpoint has answered go on; what has come is read; all answers are written at once; new requests begin.

mod stream;
mod streams;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use self::stream::Inbox;
#[cfg(test)]
pub(super) use self::stream::answer_all;
use self::streams::Streams;
use super::client::{Client, Order};
use super::closing::linger;
use super::wire::Wire;
use crate::config::ProxyConfig;
use crate::error::Reason;
use crate::http2::{Connection, Settings, Shared};

/// What a client may send before it is read here, in bytes: of one stream, and of the connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much is read at once, in bytes.
const READ: usize = 64 * 1024;
/// So often a connection may read in one turn, before others get theirs.
const READS: usize = 4;
/// So many pieces of memory for what is written are kept, none larger than this.
const SPARE: usize = 16;
const LARGE: usize = 128 * 1024;

/// How connections over HTTP/2 are served; one for each worker.
pub(crate) struct Http2 {
    settings: Settings,
    /// What all connections read into, one after the other: what has come is used up at once.
    input: RefCell<Vec<u8>>,
    /// Memory to write from, for as long as something waits to be written.
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Http2 {
    /// How they are served under this configuration.
    pub(super) fn new(config: &ProxyConfig) -> Self {
        let settings = Settings {
            max_streams: config.max_http2_streams,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            max_head_bytes: config.max_head_bytes,
        };
        Self { settings, input: RefCell::default(), spare: RefCell::default() }
    }

    fn give(&self, memory: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE && memory.capacity() <= LARGE {
            spare.push(memory);
        }
    }
}

/// Serves a connection until either side closes it. Dropping the future closes it at once.
pub(super) async fn serve(client: &Rc<Client>, wire: &Rc<Wire>) {
    client.speaks_http2();
    let worker = client.worker();
    let settings = worker.builder.http2.settings;
    let connection =
        Connection::new(settings, client.head_limits(), Rc::clone(&worker.spare_headers), worker.clock.now());
    let connection: Shared = Rc::new(RefCell::new(connection));
    wire.carries(&connection);
    let answer = |inbox| stream::answer_all(Rc::clone(client), Rc::clone(&connection), inbox);
    let places = usize::try_from(settings.max_streams).unwrap_or(usize::MAX).saturating_mul(2);
    let mut serving = Serving {
        client,
        wire,
        connection: &connection,
        streams: Streams::new(places, answer),
        may_read: true,
        may_write: true,
        flushes: false,
    };
    let mut held = Some(wire.take_held());
    let after = poll_fn(|cx| serving.turn(cx, held.take().as_deref())).await;
    // Whatever is still in flight ends here, before the connection does.
    drop(serving);
    if after == After::Close {
        linger(client, wire).await;
    }
}

/// What becomes of a connection that is served no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The client has been told, and is given the time to read it.
    Close,
    /// It broke.
    Drop,
}

/// A connection at work.
struct Serving<'a, F, M> {
    client: &'a Rc<Client>,
    wire: &'a Rc<Wire>,
    connection: &'a Shared,
    streams: Streams<F, M>,
    /// Whether something may have come, and whether something may be written: not known to be otherwise.
    may_read: bool,
    may_write: bool,
    /// Whether something was written that may still be on its way through TLS.
    flushes: bool,
}

impl<F, M> Serving<'_, F, M>
where
    F: Future<Output = ()>,
    M: Fn(Rc<Inbox>) -> F,
{
    /// Does what there is to do; `held` has come before. Ready when the connection is to end.
    fn turn(&mut self, cx: &Context<'_>, held: Option<&[u8]>) -> Poll<After> {
        match self.client.take_order(cx) {
            Some(Order::TimeOut | Order::Abort) => return Poll::Ready(After::Drop),
            Some(Order::Finish) => self.connection.borrow_mut().leave(),
            None => {}
        }
        self.streams.begin(cx);
        self.connection.borrow_mut().output().borrow(|| self.memory());
        if self.streams.take_connection() {
            (self.may_read, self.may_write) = (true, true);
        }
        // The sweep may have reset some.
        self.poll_touched();
        self.streams.poll_woken();
        let gone = match self.read(held.unwrap_or_default()) {
            Ok(gone) => gone,
            Err(Ends) => return Poll::Ready(self.break_off()),
        };
        if gone || self.write().is_err() {
            return Poll::Ready(After::Drop);
        }
        self.streams.poll_fresh();
        if self.write_all().is_err() {
            return Poll::Ready(After::Drop);
        }
        self.end_turn(cx)
    }

    fn end_turn(&mut self, cx: &Context<'_>) -> Poll<After> {
        let connection = &mut *self.connection.borrow_mut();
        let written = connection.output().waiting().is_empty() && !self.flushes;
        if written {
            if connection.is_finished() {
                return Poll::Ready(After::Close);
            }
            if let Some(memory) = connection.output().give_back() {
                self.client.worker().builder.http2.give(memory);
            }
        }
        let reads_on = self.may_read && connection.output().has_room();
        if self.streams.are_many() && connection.is_idle() {
            connection.forget_places();
            self.streams.release();
        }
        self.streams.end(cx, reads_on);
        Poll::Pending
    }

    /// Takes what has come, a few times over; whether the client is gone.
    fn read(&mut self, held: &[u8]) -> Result<bool, Ends> {
        if !held.is_empty() {
            self.receive(held)?;
        }
        let worker = Rc::clone(self.client.worker());
        let input = &mut *worker.builder.http2.input.borrow_mut();
        if input.is_empty() && self.may_read {
            input.resize(READ, 0);
        }
        for _ in 0..READS {
            if !self.may_read || !self.connection.borrow_mut().output().has_room() {
                break;
            }
            let mut buffer = ReadBuf::new(input);
            let polled = {
                let mut cx = Context::from_waker(&self.streams.connection);
                Pin::new(&mut *self.wire.stream.borrow_mut()).poll_read(&mut cx, &mut buffer)
            };
            match polled {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.receive(buffer.filled())?,
                Poll::Ready(_) => return Ok(true),
                Poll::Pending => self.may_read = false,
            }
        }
        Ok(false)
    }

    /// Hands over what has come, and makes ready who answers it.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Ends> {
        self.client.received();
        let limits = self.client.head_limits();
        let now = self.client.worker().clock.now();
        let received = {
            let mut connection = self.connection.borrow_mut();
            connection.at(limits, now);
            let received = connection.receive(bytes);
            for _ in 0..connection.take_faults() {
                self.client.worker().metrics.failed(Reason::BadRequest);
            }
            received
        };
        if let Err(error) = received {
            self.client.worker().metrics.failed(Reason::BadRequest);
            tracing::debug!(%error, peer = %self.client.peer.address, "a client broke the rules of HTTP/2");
            return Err(Ends);
        }
        loop {
            let Some(asked) = self.connection.borrow_mut().take_request() else { break };
            self.streams.insert(asked);
        }
        self.poll_touched();
        Ok(())
    }

    /// Polls the streams that were reset.
    fn poll_touched(&mut self) {
        loop {
            let Some(place) = self.connection.borrow_mut().take_touched() else { break };
            self.streams.poll(place);
        }
    }

    fn memory(&self) -> Vec<u8> {
        self.client.worker().builder.http2.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Writes, and asks for more of the answers that wait for room as long as there is some.
    fn write_all(&mut self) -> io::Result<()> {
        loop {
            self.write()?;
            let mut goes_on = false;
            loop {
                let Some(place) = self.connection.borrow_mut().take_next_in_line() else { break };
                self.streams.poll(place);
                goes_on = true;
            }
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Writes as much as goes through now.
    fn write(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.streams.connection);
        let mut stream = self.wire.stream.borrow_mut();
        let mut connection = self.connection.borrow_mut();
        let output = connection.output();
        while self.may_write && !output.waiting().is_empty() {
            match Pin::new(&mut *stream).poll_write(&mut cx, output.waiting())? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    output.advance(written);
                    self.flushes = true;
                }
                Poll::Pending => self.may_write = false,
            }
        }
        if self.may_write && self.flushes {
            match Pin::new(&mut *stream).poll_flush(&mut cx)? {
                Poll::Ready(()) => self.flushes = false,
                Poll::Pending => self.may_write = false,
            }
        }
        Ok(())
    }

    /// The client has broken the rules: it is told, if that goes through.
    fn break_off(&mut self) -> After {
        if self.write().is_ok() { After::Close } else { After::Drop }
    }
}

/// The connection ends, because the client has broken the rules.
struct Ends;
