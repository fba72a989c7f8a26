//! A client's connection as bytes: its stream, what has come and was not used yet, and what is to go out.
//!
//! The loop that serves the connection and the body of the request that is in flight both read from here, never at the
//! same time: as long as the body has not ended, it alone reads. Memory for bytes is taken when there are some and kept
//! from one request to the next; a connection that is idle for a while gives it back.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::client::Client;
use super::output::Output;
use super::screen::Screen;
use super::stream::Stream;
use crate::error::Failure;
use crate::http::client_body::BrokeOff;
use crate::http1::body::{BodyReader, Piece};
use crate::http1::framing::Delimited;
use crate::http1::request::{HeadReader, Limits, Verdict};
use crate::http2;
use crate::upstream::Buffers;

/// How much is read at once where nothing says how much comes, in bytes.
const PIECE: usize = 16 * 1024;
/// The most that is read at once of a body.
const LARGE_PIECE: usize = 64 * 1024;
/// With less room than this left, it is worth looking for more before reading.
const LITTLE_ROOM: usize = 4 * 1024;

/// One client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// A borrow lasts for one poll, and a poll of the socket runs no other code.
    pub(super) stream: RefCell<Stream>,
    input: RefCell<Input>,
    pub(super) output: RefCell<Output>,
    unsent: Cell<Unsent>,
    buffers: Rc<Buffers>,
    http2: RefCell<Option<Weak<RefCell<http2::Connection>>>>,
}

/// Who writes what is in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// Nobody: there is nothing, or whoever has put it there does.
    None,
    /// The worker, at the end of this round.
    Left,
    /// The connection's task: the worker could not write all of it.
    Stuck,
}

#[derive(Debug)]
struct Input {
    /// Bytes that have come and were not used.
    held: BytesMut,
    reader: HeadReader,
    /// The body of the request that is in flight, as long as not all of it was taken.
    body: Option<BodyReader>,
}

/// The body of a request, read from its client's connection.
pub(crate) struct WireBody {
    client: Rc<Client>,
    wire: Rc<Wire>,
}

// === impl Wire ===

impl Wire {
    /// A connection of which nothing has been read.
    pub(super) fn new(stream: Stream, limits: Limits, buffers: Rc<Buffers>) -> Self {
        let input = Input { held: BytesMut::new(), reader: HeadReader::new(limits), body: None };
        Self {
            stream: RefCell::new(stream),
            input: RefCell::new(input),
            output: RefCell::new(Output::new(Rc::clone(&buffers))),
            buffers,
            unsent: Cell::new(Unsent::None),
            http2: RefCell::default(),
        }
    }

    /// Goes on with the head that comes, as far as it has come.
    pub(super) fn read_head(&self) -> Verdict {
        let input = &mut *self.input.borrow_mut();
        if input.held.is_empty() { Verdict::Partial } else { input.reader.read(&input.held) }
    }

    /// Takes the head that has been read, and begins with its body. Also, whether the client asks for the connection to
    /// be closed after the response.
    ///
    /// # Errors
    /// As in [`HeadReader::take`].
    pub(super) fn take_head(&self, framing: Delimited, client: &Client) -> Result<(Parts, bool), Failure> {
        let input = &mut *self.input.borrow_mut();
        let parts = input.reader.take(&mut input.held, client.worker().spare_headers.take())?;
        let closes = input.reader.closes();
        input.reader.restart(client.head_limits());
        input.body = framing.body().map(BodyReader::new);
        Ok((parts, closes))
    }

    /// Gives up all that is held, with the head that has just been read, for somebody else to serve.
    pub(super) fn hand_over(&self, framing: Delimited) -> Screen {
        let input = &mut *self.input.borrow_mut();
        let limits = input.reader.limits();
        let reader = std::mem::replace(&mut input.reader, HeadReader::new(limits));
        Screen::resume(std::mem::take(&mut input.held), reader, framing)
    }

    /// Gives up all that is held to whoever reads the stream from here on.
    pub(super) fn take_held(&self) -> BytesMut {
        let input = &mut *self.input.borrow_mut();
        input.reader = HeadReader::new(input.reader.limits());
        std::mem::take(&mut input.held)
    }

    /// It is a connection over HTTP/2 now, which has memory of its own to give back.
    pub(super) fn carries(&self, http2: &http2::Shared) {
        self.http2.replace(Some(Rc::downgrade(http2)));
    }

    /// Whether bytes are held that nobody has used.
    pub(super) fn holds_some(&self) -> bool {
        !self.input.borrow().held.is_empty()
    }

    /// Whether all of the request in flight has been taken.
    pub(super) fn body_is_ended(&self) -> bool {
        self.input.borrow().body.is_none()
    }

    /// Throws away what is held of a body that nobody wants. Whether that was all of it, and the next head can come.
    pub(super) fn skip_body(&self) -> bool {
        let input = &mut *self.input.borrow_mut();
        while let Some(body) = &mut input.body {
            match body.take(&mut input.held) {
                Ok(Some(Piece::Data(_))) if !body.is_ended() => {}
                Ok(Some(_)) => input.body = None,
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// Gives back memory that nothing needs now.
    pub(super) fn release(&self) {
        let input = &mut *self.input.borrow_mut();
        if input.held.is_empty() && input.body.is_none() {
            self.give_back(input);
            input.reader.release();
        }
        if let Some(http2) = self.http2.borrow().as_ref().and_then(Weak::upgrade) {
            http2.borrow_mut().release();
        }
    }

    /// Resets streams that have their answer, and whose client has not taken it for so long. Whether there are some.
    pub(super) fn reset_stuck_streams(&self, now: Instant, patience: Duration) -> bool {
        let http2 = self.http2.borrow().as_ref().and_then(Weak::upgrade);
        http2.is_some_and(|http2| http2.borrow_mut().reset_stuck(now, patience))
    }

    fn give_back(&self, input: &mut Input) {
        if input.held.capacity() > 0 {
            self.buffers.was_read(std::mem::take(&mut input.held));
        }
    }

    /// Reads what comes next into the buffer; 0 is the end. Before a head, memory is used anew from its beginning if it
    /// can be.
    pub(super) fn poll_fill_for_head(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = &mut self.input.borrow_mut().held;
        let begins = held.is_empty();
        if begins && held.try_reclaim(PIECE) {
            return self.poll_fill(cx, held, PIECE, PIECE);
        }
        self.poll_fill(cx, held, if begins { LITTLE_ROOM } else { 1 }, PIECE)
    }

    /// Reads what comes though nobody waits for it: the next request, or the end. Only into what room there is, since
    /// the head before it still uses the memory.
    pub(super) fn poll_fill_ahead(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill(cx, &mut self.input.borrow_mut().held, 1, PIECE)
    }

    /// Reads into the buffer, which is given a piece more room if it has not the least of it.
    fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        held: &mut BytesMut,
        least: usize,
        piece: usize,
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        if held.capacity() - held.len() < least && !held.try_reclaim(piece) {
            // Who sends nothing costs no memory.
            ready!(poll_readable(&stream, cx))?;
            if held.is_empty() {
                *held = self.buffers.to_read();
            }
            held.reserve(piece);
        }
        pin!(stream.read_buf(held)).poll(cx)
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let input = &mut *self.input.borrow_mut();
        loop {
            let Some(body) = &mut input.body else { return Poll::Ready(None) };
            match body.take(&mut input.held) {
                Ok(Some(Piece::Data(data))) => {
                    if body.is_ended() {
                        input.body = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::End(trailers))) => {
                    input.body = None;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))));
                }
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(BrokeOff))),
            }
            let left = body.remaining().map_or(PIECE, |left| usize::try_from(left).unwrap_or(LARGE_PIECE));
            let piece = left.clamp(PIECE, LARGE_PIECE);
            match ready!(self.poll_fill(cx, &mut input.held, LITTLE_ROOM.min(left), piece)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BrokeOff))),
            }
        }
    }

    /// Writes all that is to go out.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream.borrow_mut();
        ready!(self.output.borrow_mut().poll_write(cx, &mut stream))?;
        Pin::new(&mut *stream).poll_flush(cx)
    }

    /// Leaves what is to go out to the worker, until the end of its round.
    pub(super) fn leave(&self) {
        self.unsent.set(Unsent::Left);
    }

    /// Writes what was left to the worker, and is not written yet.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.get() == Unsent::None {
            return Poll::Ready(Ok(()));
        }
        self.unsent.set(Unsent::Stuck);
        let flushed = self.poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.unsent.set(Unsent::None);
        }
        flushed
    }

    /// Whether something was left to the worker and is not written yet.
    pub(super) fn has_left(&self) -> bool {
        self.unsent.get() != Unsent::None
    }

    /// Whether something was left to the worker that it could not write.
    pub(super) fn is_stuck(&self) -> bool {
        self.unsent.get() == Unsent::Stuck
    }

    /// Says that nothing more comes.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Reads away what the client still sends, until it ends its direction.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            let mut stream = self.stream.borrow_mut();
            let read = ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut *stream), cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut input = self.input.borrow_mut();
        input.held.clear();
        self.give_back(&mut input);
    }
}

/// Ready when a read may find something.
fn poll_readable(stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match stream {
        Stream::Plain(socket) => socket.poll_read_ready(cx),
        // What was decrypted already is not seen by the socket.
        Stream::Tls(stream) if stream.get_ref().1.wants_read() => stream.get_ref().0.poll_read_ready(cx),
        Stream::Tls(_) => Poll::Ready(Ok(())),
    }
}

// === impl WireBody ===

impl std::fmt::Debug for WireBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireBody").finish_non_exhaustive()
    }
}

impl WireBody {
    /// The body of the request whose head was taken last.
    pub(super) fn new(client: &Rc<Client>, wire: &Rc<Wire>) -> Self {
        Self { client: Rc::clone(client), wire: Rc::clone(wire) }
    }

    /// The next piece.
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let polled = self.wire.poll_body(cx);
        if polled.is_ready() && self.wire.body_is_ended() {
            // From here on the connection's task reads, to see a client that goes away.
            self.client.wake_for(cx);
        }
        polled
    }

    /// Whether all of it was taken.
    pub(crate) fn is_ended(&self) -> bool {
        self.wire.body_is_ended()
    }

    /// What is known of the length of what is left.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.wire.input.borrow().body {
            Some(body) => body.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
            None => SizeHint::with_exact(0),
        }
    }
}
