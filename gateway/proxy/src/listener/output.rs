//! What is to go out on a client's connection. It has a bound: who fills it waits while there is no room.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, header};
use tokio::io::AsyncWrite as _;

use super::stream::Stream;
use crate::http1::Malformed;
use crate::http1::answer::{self, Manner};
use crate::http1::framing::Delimited;
use crate::http1::outgoing::Outgoing;
use crate::http1::write::BodyWriter;
use crate::upstream::Buffers;

/// The response that goes out.
#[derive(Debug)]
pub(super) struct Output {
    bytes: Outgoing,
    buffers: Rc<Buffers>,
    body: BodyWriter,
    /// Which trailers were announced.
    announcement: Option<HeaderValue>,
    /// Whether the end of the body is to follow when what is there has gone out.
    ends: bool,
}

impl Output {
    /// Nothing, for now.
    pub(super) fn new(buffers: Rc<Buffers>) -> Self {
        let (bytes, body) = (Outgoing::default(), BodyWriter::none());
        Self { bytes, buffers, body, announcement: None, ends: false }
    }

    /// Begins a response. Whether a body is to follow.
    pub(super) fn head(&mut self, parts: &Parts, manner: &Manner) -> bool {
        self.announcement = None;
        self.bytes.borrow(|| self.buffers.to_write());
        let framing = answer::head(parts, manner, self.bytes.made());
        if framing == Delimited::Chunked {
            self.announcement = parts.headers.get(header::TRAILER).cloned();
        }
        self.body = framing.body().map_or_else(BodyWriter::none, BodyWriter::new);
        !self.body.is_ended()
    }

    /// Whether more may be added.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.has_room()
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// If there is more of it than the head says.
    pub(super) fn data(&mut self, data: Bytes) -> Result<(), Malformed> {
        self.bytes.borrow(|| self.buffers.to_write());
        self.body.data(data, &mut self.bytes)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// If there is less of it than the head says.
    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Malformed> {
        if !self.has_room() {
            // Trailers are only asked for where there is room, so these are none.
            self.ends = true;
            return Ok(());
        }
        let announced =
            |(trailers, announcement): (&HeaderMap, _)| answer::announced(trailers, &announcement);
        let kept = trailers.zip(self.announcement.take()).map(announced);
        self.body.end(kept.as_ref(), &mut self.bytes)
    }

    /// Adds bytes that are a whole answer.
    pub(super) fn answer(&mut self, bytes: &[u8]) {
        self.bytes.borrow(|| self.buffers.to_write());
        self.bytes.made().extend_from_slice(bytes);
    }

    /// Writes all of it, and gives back the memory.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            if self.bytes.is_empty() {
                if !std::mem::take(&mut self.ends) {
                    if let Some(memory) = self.bytes.give_back() {
                        self.buffers.was_written(memory);
                    }
                    return Poll::Ready(Ok(()));
                }
                self.body.end(None, &mut self.bytes).map_err(io::Error::other)?;
                continue;
            }
            let stream = Pin::new(&mut *stream);
            let polled = match self.bytes.plain() {
                Some(plain) => stream.poll_write(cx, plain),
                None => stream.poll_write_vectored(cx, &self.bytes.slices()),
            };
            match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.bytes.advance(written),
            }
        }
    }
}
