//! Serves ordinary HTTP/1.1: one task for each connection, one request after the other, no task for a request.
//!
//! Every head is read from its raw bytes and strictly ([`crate::http1::request`]). The plainly ordinary ones are served
//! here. At the first one that is not, the connection is given up with all its bytes, that head included, and hyper goes
//! on with it to its end: no byte is understood by one and then by the other.
//!
//! A client that ends its direction while its request is in flight is gone, and its request is dropped: most that do so
//! have closed the connection, and no look at the socket tells the two apart. The end is not seen while bytes of the
//! next request wait, or while the request's own body does.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;

use super::client::{Client, Order};
use super::closing::{linger, unless_aborted};
use super::screen::Screen;
use super::stream::Stream;
use super::wire::{Wire, WireBody};
use crate::error::{Failure, Reason};
use crate::flushes::To;
use crate::http::body::Body;
use crate::http::client_body::ClientBody;
use crate::http::{proxy, respond};
use crate::http1::Malformed;
use crate::http1::answer::{Manner, is_head_only, says_close};
use crate::http1::framing::Delimited;
use crate::http1::request::Verdict;

/// Who serves what follows on a connection, from the head on that is the first in it.
pub(super) enum Other {
    Hyper(Box<Screen>),
    /// It begins HTTP/2.
    Http2,
}

/// What is to be done next.
enum Next {
    Serve(Delimited),
    ToHyper(Delimited),
    ToHttp2,
    Refuse(Failure),
    Close,
    /// It broke, or is to close now.
    Drop,
}

/// What becomes of a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    NextRequest,
    /// Nothing more is to be read; what the client still sends is in the way of nothing.
    Close,
    /// The client may still send, and is given the time to read its answer.
    Linger,
    /// It broke.
    Drop,
}

struct Connection<'a> {
    client: &'a Rc<Client>,
    wire: &'a Rc<Wire>,
    /// Whether HTTP/2 may begin.
    may_be_http2: bool,
    /// Whether it is to close when what is in flight has been answered.
    finishing: bool,
}

/// Serves a connection until it closes, or until there is a head that somebody else is to serve: then gives that, with
/// what follows it. Dropping the future closes the connection at once.
pub(super) async fn serve(client: &Rc<Client>, wire: &Rc<Wire>, may_be_http2: bool) -> Option<Other> {
    let mut connection = Connection { client, wire, may_be_http2, finishing: false };
    let after = loop {
        let next = poll_fn(|cx| connection.poll_head(cx)).await;
        let after = match next {
            Next::Drop => After::Drop,
            _ if !connection.settle().await => After::Drop,
            Next::Serve(framing) => match wire.take_head(framing, client) {
                Ok((parts, closes)) => connection.exchange(parts, framing, closes).await,
                Err(failure) => connection.refuse(&failure).await,
            },
            Next::ToHyper(framing) => return Some(Other::Hyper(Box::new(wire.hand_over(framing)))),
            Next::ToHttp2 => return Some(Other::Http2),
            Next::Refuse(failure) => connection.refuse(&failure).await,
            Next::Close => After::Close,
        };
        if after != After::NextRequest {
            break after;
        }
    };
    connection.close(after).await;
    None
}

impl Connection<'_> {
    /// Waits for a head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match self.client.take_order(cx) {
            Some(Order::Abort) => return Poll::Ready(Next::Drop),
            Some(Order::TimeOut) => return Poll::Ready(self.timed_out()),
            Some(Order::Finish) => self.finishing = true,
            None => {}
        }
        if self.wire.is_stuck() && !ready!(self.poll_settle(cx)) {
            return Poll::Ready(Next::Drop);
        }
        if self.wire.holds_some() {
            self.client.received();
        }
        loop {
            match self.wire.read_head() {
                Verdict::Partial => {}
                verdict => return Poll::Ready(self.decide(verdict)),
            }
            match self.wire.poll_fill_for_head(cx) {
                Poll::Ready(Ok(1..)) => self.client.received(),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Close),
                // What has come by now would have been served.
                Poll::Pending if self.finishing => return Poll::Ready(Next::Close),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sees to it that what was left to the worker has gone out; false, if it cannot.
    async fn settle(&mut self) -> bool {
        !self.wire.has_left() || poll_fn(|cx| self.poll_settle(cx)).await
    }

    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let flushed = self.poll_unless_gone(cx, |connection, cx| connection.wire.poll_left(cx));
        if flushed.is_pending() {
            self.client.owes_reading();
        }
        flushed.map(|flushed| matches!(flushed, Some(Ok(()))))
    }

    fn decide(&mut self, verdict: Verdict) -> Next {
        let may_be_http2 = std::mem::take(&mut self.may_be_http2);
        match verdict {
            Verdict::Ordinary(framing) => Next::Serve(framing),
            Verdict::ToHyper(framing) => Next::ToHyper(framing),
            Verdict::Http2 if may_be_http2 => Next::ToHttp2,
            Verdict::Http2 => {
                Next::Refuse(Failure::new(Reason::BadRequest, "HTTP/2 begins with a connection"))
            }
            Verdict::Refused(failure) => Next::Refuse(failure),
            // Not asked with it.
            Verdict::Partial => Next::Close,
        }
    }

    /// The head has not come in time. A client that has sent a part of one is told.
    fn timed_out(&self) -> Next {
        if self.wire.holds_some() {
            return Next::Refuse(Failure::new(
                Reason::RequestTimeout,
                "the head of the request did not come in time",
            ));
        }
        self.client.worker().metrics.failed(Reason::RequestTimeout);
        Next::Close
    }

    /// Answers one request.
    async fn exchange(&mut self, parts: Parts, framing: Delimited, closes: bool) -> After {
        let head_only = is_head_only(&parts.method);
        let body = match framing {
            Delimited::None => ClientBody::Empty,
            Delimited::Length(_) | Delimited::Chunked => {
                ClientBody::Own(WireBody::new(self.client, self.wire))
            }
        };
        let response = {
            let request = Request::from_parts(parts, body);
            let mut forward = pin!(proxy::forward(Rc::clone(self.client), request));
            poll_fn(|cx| self.poll_unless_gone(cx, |_, cx| forward.as_mut().poll(cx))).await
        };
        match response {
            Some(response) => self.respond(response, head_only, closes).await,
            None => After::Drop,
        }
    }

    /// Runs `step` until it is done, or the client is gone, or to be: then nothing.
    fn poll_unless_gone<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        match self.client.take_order(cx) {
            // A late order to time out is for a head.
            Some(Order::Abort) => return Poll::Ready(None),
            Some(Order::Finish) => self.finishing = true,
            Some(Order::TimeOut) | None => {}
        }
        if let Poll::Ready(done) = step(self, cx) {
            return Poll::Ready(Some(done));
        }
        // As long as the body comes, it alone reads.
        if !self.wire.body_is_ended() || self.wire.holds_some() {
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill_ahead(cx)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(None),
        }
    }

    /// Sends a response, its body piece by piece.
    async fn respond(&mut self, response: Response<Body>, head_only: bool, closes: bool) -> After {
        let (parts, body) = response.into_parts();
        let closes = closes || self.finishing || says_close(&parts.headers);
        let worker = self.client.worker();
        let manner = Manner {
            head_only,
            closes,
            length: body.size_hint().exact(),
            date: worker.builder.date.at(worker.clock.now()),
        };
        let mut body = Some(body).filter(|_| self.wire.output.borrow_mut().head(&parts, &manner));
        worker.spare_headers.give(parts.headers);
        let sent =
            poll_fn(|cx| self.poll_unless_gone(cx, |connection, cx| connection.poll_response(cx, &mut body)))
                .await;
        match sent {
            Some(Ok(())) if !self.wire.skip_body() => After::Linger,
            Some(Ok(())) if !closes => After::NextRequest,
            Some(Ok(())) if self.wire.holds_some() => After::Linger,
            Some(Ok(())) => After::Close,
            Some(Err(Broken)) | None => After::Drop,
        }
    }

    /// Writes what there is of a response, asks for more of its body when there is room, and so on to its end. The last of
    /// it is left to the worker.
    fn poll_response(&self, cx: &mut Context<'_>, body: &mut Option<Body>) -> Poll<Result<(), Broken>> {
        loop {
            let filled = self.poll_pieces(cx, body);
            if let Poll::Ready(Err(broken)) = filled {
                // What came before the break has been promised to nobody, but may be of use.
                let _lost = self.wire.poll_flush(cx);
                return Poll::Ready(Err(broken));
            }
            if body.is_none() {
                self.wire.leave();
                self.client.worker().flushes.leave(To::Client, Rc::clone(self.client) as _);
                return Poll::Ready(Ok(()));
            }
            ready!(self.wire.poll_flush(cx)).map_err(|_| Broken)?;
            if filled.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes pieces of the body while there is room for them. Takes the body away at its end.
    fn poll_pieces(&self, cx: &mut Context<'_>, slot: &mut Option<Body>) -> Poll<Result<(), Broken>> {
        let mut output = self.wire.output.borrow_mut();
        while let Some(body) = slot.as_mut().filter(|_| output.has_room()) {
            let ended = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        output.data(data)?;
                        body.is_end_stream()
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok();
                        output.end(trailers.as_ref())?;
                        *slot = None;
                        return Poll::Ready(Ok(()));
                    }
                },
                Some(Err(_)) => return Poll::Ready(Err(Broken)),
                None => true,
            };
            if ended {
                output.end(None)?;
                *slot = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Answers a head that did not become a request.
    async fn refuse(&self, failure: &Failure) -> After {
        self.client.refused(failure.reason);
        self.wire.output.borrow_mut().answer(&respond::refusal(failure));
        let flushed = unless_aborted(self.client, |cx| self.wire.poll_flush(cx)).await;
        if matches!(flushed, Some(Ok(()))) { After::Linger } else { After::Drop }
    }

    /// Closes the connection.
    async fn close(&mut self, after: After) {
        if after == After::Drop || !self.settle().await {
            return;
        }
        // Closing the socket says the same, but for TLS.
        let says_end = matches!(*self.wire.stream.borrow(), Stream::Tls(_));
        if after == After::Linger {
            linger(self.client, self.wire).await;
        } else if says_end {
            unless_aborted(self.client, |cx| self.wire.poll_shutdown(cx)).await;
        }
    }
}

/// The response could not be sent to its end.
#[derive(Debug)]
struct Broken;

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self
    }
}
