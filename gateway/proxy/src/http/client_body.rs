//! The body of a client's request, whoever reads it from the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http2_body::Http2Body;
use crate::listener::WireBody;

/// The body of a client's request.
#[derive(Debug)]
pub(crate) enum ClientBody {
    /// There is none.
    Empty,
    /// It comes over HTTP/2.
    Http2(Http2Body),
    /// It comes over HTTP/1.1 and is read here.
    Own(WireBody),
    /// hyper reads it.
    Hyper(Incoming),
}

/// The body did not come to its end: the connection broke, or what came is malformed.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request broke off")]
pub(crate) struct BrokeOff;

impl From<Option<Http2Body>> for ClientBody {
    fn from(body: Option<Http2Body>) -> Self {
        body.map_or(Self::Empty, Self::Http2)
    }
}

impl From<Incoming> for ClientBody {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() { Self::Empty } else { Self::Hyper(incoming) }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http2(body) => body.poll_frame(cx),
            Self::Own(body) => body.poll_frame(cx),
            Self::Hyper(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|_| BrokeOff)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http2(body) => body.is_ended(),
            Self::Own(body) => body.is_ended(),
            Self::Hyper(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http2(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
            Self::Hyper(incoming) => incoming.size_hint(),
        }
    }
}
