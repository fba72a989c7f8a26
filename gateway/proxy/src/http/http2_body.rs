//! The body of a request over HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::client_body::BrokeOff;
use crate::http2::connection::Piece;
use crate::http2::{Connection, Shared};

/// The body of a request over HTTP/2. The client gets room for more as soon as a piece is taken from here.
pub(crate) struct Http2Body {
    connection: Shared,
    place: usize,
    stream: u32,
    /// How much is still to come, in bytes, if the request has said how long it is. The client is held to it.
    left: Option<u64>,
    /// Whether the client waits to be told that its body is wanted.
    expects: bool,
}

impl std::fmt::Debug for Http2Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Body").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Http2Body {
    /// What follows the head of this stream, of this length, if that is known. `expects` tells that the client waits to
    /// be told to go on.
    pub(crate) fn new(
        connection: Shared,
        place: usize,
        stream: u32,
        left: Option<u64>,
        expects: bool,
    ) -> Self {
        Self { connection, place, stream, left, expects }
    }

    /// Whether nothing follows.
    pub(super) fn is_ended(&self) -> bool {
        self.connection.borrow().body_is_ended(self.place, self.stream)
    }

    /// What is known of the length of what follows.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    /// The next piece, or the trailers. A stream that is reset, in whatever words, has not ended.
    pub(super) fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let connection = &mut *self.connection.borrow_mut();
        if std::mem::take(&mut self.expects) {
            go_on(connection, self.place, self.stream);
        }
        match ready!(connection.poll_body(self.place, self.stream, cx)) {
            Piece::Data(data) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Piece::End(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers)))),
            Piece::BrokeOff => Poll::Ready(Some(Err(BrokeOff))),
        }
    }
}

/// Tells the client to go on, unless it has done so.
fn go_on(connection: &mut Connection, place: usize, stream: u32) {
    if !connection.body_has_begun(place, stream) {
        connection.send_continue(place);
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        self.connection.borrow_mut().drop_body(self.place, self.stream);
    }
}
