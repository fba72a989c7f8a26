//! The wire to an endpoint: a request's bytes out, a response's in. It has no task of its own; whoever waits for the
//! response polls it. Dropping it closes the connection.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::StatusCode;
use http::response;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::buffers::Buffers;
use super::socket::Socket;
use crate::error::Reason;
use crate::flushes::{Flushes, To};
use crate::http::exchange::UploadBroken;
use crate::http::outbound::Outbound;
use crate::http1::Malformed;
use crate::http1::body::{BodyReader, Piece};
use crate::http1::response::HeadReader;
use crate::http1::write::{BodyWriter, request_head};

/// Room for one read: the head and the body of most small answers.
const READ: usize = 8 * 1024;

/// Room for one read of a body of which so much is still to come.
const READ_OF_LARGE: usize = 64 * 1024;

/// So many heads of the largest size may come in place of one, else an endpoint could send interim responses for as long
/// as it likes.
const FLOOD: usize = 4;

/// One open connection.
pub(super) struct Leg {
    socket: Rc<Socket>,
    flushes: Rc<Flushes>,
    body: BodyWriter,
    /// Read, and not taken yet.
    received: BytesMut,
    heads: HeadReader,
    most_interim: usize,
    /// Bytes of interim responses to the request.
    interim: usize,
    /// Whether a byte of the response was read.
    read: bool,
    /// Whether the head was kept back for the beginning of its body.
    waited: bool,
    /// Whether the request may be left to the worker to be written. One with a body may not: its body is not kept, so it
    /// cannot be sent again if the connection ends before that.
    may_be_left: bool,
}

/// Why there is no (more of a) response.
#[derive(Debug, thiserror::Error)]
pub(super) enum LegBroken {
    /// The endpoint closed the connection.
    #[error("the connection ended")]
    Closed,
    /// The connection died.
    #[error("the connection broke: {0}")]
    Reset(#[source] io::Error),
    /// Something came before a byte of the request was written, so it is no answer to that.
    #[error("the endpoint spoke unasked")]
    Unasked,
    /// What came is no response.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl LegBroken {
    /// What it means for a request whose response has begun.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Closed | Self::Reset(_) | Self::Malformed(Malformed::Truncated) => Reason::UpstreamReset,
            Self::Malformed(_) | Self::Unasked => Reason::UpstreamProtocol,
        }
    }
}

impl Leg {
    /// A connection that has carried nothing yet.
    pub(super) fn new(
        stream: TcpStream,
        max_head_bytes: usize,
        buffers: Rc<Buffers>,
        flushes: Rc<Flushes>,
    ) -> Self {
        Self {
            socket: Rc::new(Socket::new(stream, buffers)),
            flushes,
            body: BodyWriter::none(),
            received: BytesMut::new(),
            heads: HeadReader::new(max_head_bytes),
            most_interim: max_head_bytes.saturating_mul(FLOOD),
            interim: 0,
            read: false,
            waited: false,
            may_be_left: false,
        }
    }

    /// Begins a request. Nothing is written yet, so that the first of its body can go out with its head.
    ///
    /// # Errors
    /// If its fields do not say clearly where its body ends.
    pub(super) fn begin(
        &mut self,
        request: &Outbound,
        endpoint: SocketAddr,
        has_body: bool,
    ) -> Result<(), Malformed> {
        self.body = if has_body { BodyWriter::of_request(&request.headers)? } else { BodyWriter::none() };
        (self.interim, self.read, self.waited, self.may_be_left) = (0, false, false, !has_body);
        self.socket.begin();
        let mut out = self.socket.out.borrow_mut();
        out.borrow(|| self.socket.buffers.to_write());
        request_head(request, endpoint, &mut out);
        Ok(())
    }

    /// Whether a byte of the request was written, and of the response read.
    pub(super) fn moved(&self) -> (bool, bool) {
        (self.socket.wrote(), self.read)
    }

    /// Whether all of the request was written.
    pub(super) fn is_sent(&self) -> bool {
        self.body.is_ended() && self.socket.out.borrow().is_empty() && !self.socket.is_shut()
    }

    /// Writes the request, its body as it comes from `source`. Ready when all of it was written, or, if it has no body, left
    /// to the worker to be written in this round, or the endpoint takes no more of it: that is no error, since it may have answered. A piece is
    /// asked for only when there is room for it.
    ///
    /// # Errors
    /// If the body breaks off, or is not what its head says.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Result<Piece, UploadBroken>>,
    ) -> Poll<Result<(), UploadBroken>> {
        loop {
            let filled = self.poll_fill(cx, &mut source)?;
            if filled.is_pending() && !self.socket.wrote() && !self.waited {
                // What is here already of the body may have to be handed over in this very task.
                self.waited = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if std::mem::take(&mut self.may_be_left) {
                self.socket.set_owner(cx);
                self.flushes.leave(To::Endpoint, Rc::clone(&self.socket) as _);
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_flush(cx));
            if self.body.is_ended() || self.socket.is_shut() {
                return Poll::Ready(Ok(()));
            }
            ready!(filled);
        }
    }

    /// Takes from the body what there is room for; pending, if more would be taken but is not here.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl FnMut(&mut Context<'_>) -> Poll<Result<Piece, UploadBroken>>,
    ) -> Result<Poll<()>, UploadBroken> {
        while !self.body.is_ended() && !self.socket.is_shut() && self.socket.out.borrow().has_room() {
            let Poll::Ready(piece) = source(cx)? else { return Ok(Poll::Pending) };
            let mut out = self.socket.out.borrow_mut();
            out.borrow(|| self.socket.buffers.to_write());
            let appended = match piece {
                Piece::Data(data) => self.body.data(data, &mut out),
                Piece::End(trailers) => self.body.end(trailers.as_deref(), &mut out),
            };
            appended.map_err(|_| UploadBroken)?;
        }
        Ok(Poll::Ready(()))
    }

    /// The head of the response; interim ones are read past.
    ///
    /// # Errors
    /// If the connection ends before it, or what comes is no response, or none to this request.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, LegBroken>> {
        loop {
            let before = self.received.len();
            let Some(head) = self.heads.take(&mut self.received, || self.socket.buffers.headers.take())?
            else {
                ready!(self.poll_read(cx, READ))?;
                if !self.socket.wrote() {
                    return Poll::Ready(Err(LegBroken::Unasked));
                }
                continue;
            };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(
                    Malformed::Syntax("a switch of protocols that nobody asked for").into()
                ));
            }
            if !head.status.is_informational() {
                return Poll::Ready(Ok(head));
            }
            self.interim += before - self.received.len();
            if self.interim > self.most_interim {
                return Poll::Ready(Err(Malformed::TooLarge("what came before the response").into()));
            }
        }
    }

    /// The next piece of the response's body. No more of it is read before than fits into one buffer.
    ///
    /// # Errors
    /// If the connection ends before it, or it is malformed.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut BodyReader,
    ) -> Poll<Result<Piece, LegBroken>> {
        loop {
            if let Some(piece) = body.take(&mut self.received)? {
                return Poll::Ready(Ok(piece));
            }
            // A little more than what is to come: a read that fills its buffer is followed by another, to see whether
            // there is more.
            let room = body.remaining().and_then(|left| usize::try_from(left).ok());
            let room = room.map_or(READ, |left| left.saturating_add(1).clamp(READ, READ_OF_LARGE));
            match ready!(self.poll_read(cx, room)) {
                Err(LegBroken::Closed) => body.close()?,
                read => read?,
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<(), LegBroken>> {
        if self.received.capacity() == 0 {
            self.received = self.socket.buffers.to_read();
        }
        self.received.reserve(room);
        let polled = pin!(self.socket.stream.borrow_mut().read_buf(&mut self.received)).poll(cx);
        if polled.is_pending() {
            self.rest();
        }
        match ready!(polled) {
            Ok(1..) => {
                self.read = true;
                Poll::Ready(Ok(()))
            }
            Ok(0) => Poll::Ready(Err(LegBroken::Closed)),
            Err(error) => Poll::Ready(Err(LegBroken::Reset(error))),
        }
    }

    /// Gives away the memory to read into, if there is nothing in it.
    pub(super) fn rest(&mut self) {
        if self.received.is_empty() && self.received.capacity() > 0 {
            self.socket.buffers.was_read(std::mem::take(&mut self.received));
        }
    }

    /// Whether it can carry the next request: everything went out, and nothing came that nobody asked for, not even the
    /// end. Costs no system call as long as nothing came since the last look. One that is not quiet is to be dropped: the
    /// look may have taken a byte of what came.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_sent()
            && self.received.is_empty()
            && matches!(self.socket.stream.borrow().try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, asked of the kernel: it may know more than the worker has been told. One system call, so only for
    /// requests that cannot be sent again.
    pub(super) fn is_quiet_to_the_kernel(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&*self.socket.stream.borrow()).peek(&mut byte) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.socket.discard();
    }
}

#[cfg(test)]
mod tests;
