//! The body of a request over HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::client_body::BrokeOff;

/// The body of a request over HTTP/2. The client gets room for more as soon as a piece is taken from here.
#[derive(Debug)]
pub(crate) struct Http2Body {
    stream: RecvStream,
    /// How much is still to come, in bytes, if the request has said how long it is. h2 holds the client to it.
    left: Option<u64>,
    /// Whether only trailers can follow.
    data_ended: bool,
}

impl Http2Body {
    /// What follows this head; nothing, if that says several lengths, or none that can be read, in `Content-Length`.
    pub(crate) fn new(stream: RecvStream, head: &HeaderMap) -> Option<Self> {
        let mut lengths = head.get_all(header::CONTENT_LENGTH).iter();
        let left = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) => {
                Some(length.to_str().ok()?.parse().ok()?)
            }
            (Some(_), _) => return None,
        };
        Some(Self { stream, left, data_ended: false })
    }

    /// Whether nothing follows.
    pub(super) fn is_ended(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is known of the length of what follows.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_ended() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::new(),
        }
    }

    /// The next piece, or the trailers. A stream that is reset, in whatever words, has not ended.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(self.take(data))),
                Some(Err(_)) => return Poll::Ready(Some(Err(BrokeOff))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(_) => Poll::Ready(Some(Err(BrokeOff))),
        }
    }

    fn take(&mut self, data: Bytes) -> Result<Frame<Bytes>, BrokeOff> {
        self.stream.flow_control().release_capacity(data.len()).map_err(|_| BrokeOff)?;
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        Ok(Frame::data(data))
    }
}
