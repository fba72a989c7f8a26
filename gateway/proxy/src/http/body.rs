//! Bodies of responses on their way through: one piece at a time, never more than one buffer of each connection, so that
//! a slow reader slows its writer and nothing piles up here.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::exchange::{Exchange, InFlight};
use super::headers::clean_trailers;
use crate::cluster::Pick;
use crate::error::Reason;
use crate::http1::body::{BodyReader, Piece};
use crate::upstream::Connection;

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
/// flows from stays in the [`Exchange`], which lets go of it when it fails: this body is kept for as long as the client
/// takes nothing of it.
pub(crate) struct Relay {
    in_flight: InFlight,
}

/// Where a response's body comes from, and what it keeps busy there.
pub(crate) struct Download {
    connection: Box<Connection>,
    body: BodyReader,
    /// Counts the request as running on its endpoint.
    pick: Pick,
}

/// Why a response breaks off. The client sees an aborted message, never a clean end.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off: {}", .0.as_str())]
pub(crate) struct RelayBroken(Reason);

impl Body {
    /// The body of an endpoint's response, with all that lasts until its end.
    pub(crate) fn relay(
        in_flight: InFlight,
        connection: Box<Connection>,
        body: BodyReader,
        pick: Pick,
    ) -> Self {
        let exchange = in_flight.exchange();
        let is_empty = body.is_ended();
        let is_sent = connection.is_sent();
        exchange.download.replace(Some(Download { connection, body, pick }));
        if is_empty {
            Relay { in_flight }.end();
            return Self::Empty;
        }
        if !is_sent && !exchange.upload_is_refused() {
            // Whoever reads the response cannot do it: a client may send all of its request before it reads anything.
            let exchange = Rc::clone(exchange);
            tokio::task::spawn_local(async move { poll_fn(|cx| exchange.poll_rest_of_upload(cx)).await });
        }
        Self::Relay(Relay { in_flight })
    }

    /// Ready when the response cannot go on, whatever there is left of it; wakes the caller when that comes to be. For
    /// whoever waits for the client and asks for nothing more meanwhile.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<Reason> {
        match self {
            Self::Relay(relay) => relay.in_flight.exchange().poll_failed(cx),
            Self::Empty | Self::Own(_) => Poll::Pending,
        }
    }
}

impl Download {
    /// Sends what is left of the request; ready when that is all, or no use.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        self.connection.poll_send(cx, exchange)
    }
}

impl Relay {
    fn end(self) {
        let Self { in_flight } = self;
        let exchange = in_flight.exchange();
        if let Some(Download { connection, pick, .. }) = exchange.download.take() {
            let worker = exchange.client.worker();
            worker.pool.put(pick.held(), connection, worker.clock.now());
        }
        in_flight.complete();
    }

    /// Whether nothing comes after what has come.
    fn is_at_end(&self) -> bool {
        let download = self.in_flight.exchange().download.borrow();
        download.as_ref().is_some_and(|download| download.body.is_ended())
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let exchange = self.in_flight.exchange();
        let polled = match exchange.download.borrow_mut().as_mut() {
            Some(Download { connection, body, .. }) => connection.poll_body(cx, body),
            // Let go of because the exchange failed.
            None => Poll::Pending,
        };
        match polled {
            Poll::Ready(Ok(Piece::Data(data))) => {
                exchange.sent(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Ok(Piece::End(Some(mut trailers)))) => {
                clean_trailers(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(*trailers))))
            }
            Poll::Ready(Ok(Piece::End(None))) => Poll::Ready(None),
            Poll::Ready(Err(reason)) => Poll::Ready(Some(Err(reason))),
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
        // The end is told as soon as it is known, because nobody asks again after the last byte.
        let ended = match &polled {
            Poll::Pending => false,
            // Nothing follows trailers.
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
                let length = download.as_ref().and_then(|download| download.body.remaining());
                length.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
        }
    }
}
