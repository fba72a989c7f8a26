//! Bodies on their way through: one piece at a time, never more than hyper's own buffer of each connection, so that a
//! slow reader slows its writer and nothing piles up here.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::{Exchange, InFlight, Upload, UploadBroken};
use super::headers::clean_trailers;
use crate::cluster::Pick;
use crate::error::Reason;
use crate::upstream::Checkout;

/// The body of a request on its way to an endpoint. Only a handle: the body itself stays in the [`Exchange`]. A request
/// that belongs to no exchange (a copy on trial) has none.
pub(crate) struct RequestBody(pub(crate) Option<Rc<Exchange>>);

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = UploadBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        self.0.as_ref().map_or(Poll::Ready(None), |exchange| exchange.poll_upload(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|exchange| exchange.upload_state() == Upload::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |exchange| exchange.upload_size())
    }
}

/// The body of a response to a client.
pub(crate) enum Body {
    /// Nothing (more).
    Empty,
    /// What the gateway itself has to say.
    Own(Bytes),
    /// An endpoint's.
    Relay(Relay),
}

/// An endpoint's response on its way to the client. Dropping it half-way closes the upstream connection. What it
/// flows from stays in the [`Exchange`], which lets go of it when it fails: hyper may keep this body for as long as the
/// client likes.
pub(crate) struct Relay {
    in_flight: InFlight,
}

/// Where a response's body comes from, and what it keeps busy there.
pub(crate) struct Download {
    incoming: Incoming,
    checkout: Checkout,
    /// Counts the request as running on its endpoint.
    _pick: Pick,
}

/// Why a response breaks off. The client sees an aborted message, never a clean end.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off: {}", .0.as_str())]
pub(crate) struct RelayBroken(Reason);

impl Body {
    /// The body of an endpoint's response, with all that lasts until its end.
    pub(crate) fn relay(incoming: Incoming, in_flight: InFlight, checkout: Checkout, pick: Pick) -> Self {
        let empty = incoming.is_end_stream();
        in_flight.exchange().download.replace(Some(Download { incoming, checkout, _pick: pick }));
        let relay = Relay { in_flight };
        if empty {
            relay.end();
            return Self::Empty;
        }
        Self::Relay(relay)
    }
}

impl Relay {
    fn end(self) {
        let Self { in_flight } = self;
        let exchange = in_flight.exchange();
        let download = exchange.download.take();
        // Otherwise the endpoint did not want the rest of the request: that connection cannot be used again. The end
        // of the exchange aborts the upload, and so closes it.
        if exchange.upload_state() == Upload::Done
            && let Some(Download { checkout, .. }) = download
        {
            checkout.give_back();
        }
        in_flight.complete();
    }

    /// Whether nothing comes after what has come.
    fn is_at_end(&self) -> bool {
        let download = self.in_flight.exchange().download.borrow();
        download.as_ref().is_some_and(|download| download.incoming.is_end_stream())
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let exchange = self.in_flight.exchange();
        let polled = match exchange.download.borrow_mut().as_mut() {
            Some(download) => Pin::new(&mut download.incoming).poll_frame(cx),
            // Let go of because the exchange failed.
            None => Poll::Pending,
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                exchange.sent(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(clean_trailers(frame))))
            }
            Poll::Ready(Some(Err(_))) => {
                Poll::Ready(Some(Err(exchange.failed().unwrap_or(Reason::UpstreamReset))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => exchange.poll_failed(cx).map(|reason| Some(Err(reason))),
        }
    }

    fn broken(self, reason: Reason) -> RelayBroken {
        self.in_flight.exchange().note(|record| record.reason = Some(reason));
        RelayBroken(reason)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = RelayBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayBroken>>> {
        let this = &mut *self;
        let polled = match this {
            Self::Empty => return Poll::Ready(None),
            Self::Own(_) => Poll::Ready(None),
            Self::Relay(relay) => relay.poll(cx),
        };
        // The end is told as soon as it is known, because hyper does not ask again after the last byte.
        let ended = match &polled {
            Poll::Pending => false,
            // Nothing follows trailers, though hyper does not know it yet when it hands them over.
            Poll::Ready(Some(Ok(frame))) => {
                frame.is_trailers() || matches!(this, Self::Relay(relay) if relay.is_at_end())
            }
            Poll::Ready(None | Some(Err(_))) => true,
        };
        let before = if ended { std::mem::replace(this, Self::Empty) } else { Self::Empty };
        match (polled, before) {
            (Poll::Pending, _) => Poll::Pending,
            (Poll::Ready(None), Self::Own(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (Poll::Ready(Some(Err(reason))), Self::Relay(relay)) => {
                Poll::Ready(Some(Err(relay.broken(reason))))
            }
            (Poll::Ready(polled), before) => {
                if let Self::Relay(relay) = before {
                    relay.end();
                }
                Poll::Ready(polled.map(|frame| frame.map_err(RelayBroken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Own(bytes) => bytes.is_empty(),
            Self::Relay(relay) => relay.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => {
                let download = relay.in_flight.exchange().download.borrow();
                download.as_ref().map_or_else(SizeHint::new, |download| download.incoming.size_hint())
            }
        }
    }
}
