//! The bodies of requests, as they are taken.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::super::frame::{self, Kind};
use super::Connection;

/// What comes next of a request's body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// It ends, with trailers if it has some.
    End(Option<Box<HeaderMap>>),
    /// It ends before its time.
    BrokeOff,
}

impl Connection {
    /// The next piece of the body of this stream.
    pub(crate) fn poll_body(&mut self, place: usize, id: u32, cx: &Context<'_>) -> Poll<Piece> {
        let Some(stream) = self.streams.at(place).filter(|stream| stream.id == id) else {
            return Poll::Ready(Piece::BrokeOff);
        };
        if stream.held.is_empty() {
            if stream.received {
                return Poll::Ready(Piece::End(stream.trailers.take()));
            }
            match &mut stream.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                None => stream.reader = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let data = stream.held.split().freeze();
        self.give_back(Some(place), data.len());
        Poll::Ready(Piece::Data(data))
    }

    /// Whether nothing comes of this body any more, not even trailers.
    pub(crate) fn body_is_ended(&self, place: usize, id: u32) -> bool {
        match self.streams.peek(place) {
            Some(stream) if stream.id == id => {
                stream.received && stream.held.is_empty() && stream.trailers.is_none()
            }
            _ => false,
        }
    }

    /// Whether some of this body has come, or it has ended in whatever way.
    pub(crate) fn body_has_begun(&self, place: usize, id: u32) -> bool {
        match self.streams.peek(place) {
            Some(stream) if stream.id == id => stream.received || !stream.held.is_empty(),
            _ => true,
        }
    }

    /// Nobody reads this body any more.
    pub(crate) fn drop_body(&mut self, place: usize, id: u32) {
        if self.streams.peek(place).is_some_and(|stream| stream.id == id) {
            self.let_go_of_body(place);
        }
    }

    /// What is held of the body at this place goes, and so does what still comes. Who waits for it is told.
    pub(super) fn let_go_of_body(&mut self, place: usize) {
        let Some(stream) = self.streams.at(place) else { return };
        stream.wanted = false;
        stream.trailers = None;
        let held = std::mem::take(&mut stream.held).len();
        let reader = stream.reader.take();
        if held > 0 {
            self.give_back(None, held);
        }
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Lets the client send so much more: on the connection, and on a stream that still wants it.
    pub(super) fn give_back(&mut self, place: Option<usize>, bytes: usize) {
        if let Some(more) = self.receive.take(bytes) {
            frame::write_number(Kind::WindowUpdate, 0, more, self.output.bytes());
        }
        let Some(stream) = place.and_then(|place| self.streams.at(place)) else { return };
        if stream.received || stream.id == 0 {
            return;
        }
        if let Some(more) = stream.receive.take(bytes) {
            frame::write_number(Kind::WindowUpdate, stream.id, more, self.output.bytes());
        }
    }
}
