//! One stream: a request, and what is answered to it.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::Body as _;

use crate::error::Failure;
use crate::http::body::Body;
use crate::http::client_body::ClientBody;
use crate::http::http2_body::Http2Body;
use crate::http::{proxy, respond};
use crate::http2::connection::{Asked, Sent};
use crate::http2::hpack::Lacking;
use crate::http2::{ErrorCode, Shared};
use crate::listener::Client;

/// The stream's place on its connection, which is free again when this is dropped.
struct Place {
    connection: Shared,
    number: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.borrow_mut().free(self.number);
    }
}

/// Where the next request of a place is handed over.
#[derive(Default)]
pub(in crate::listener) struct Inbox(Cell<Option<Asked>>);

impl Inbox {
    pub(super) fn put(&self, asked: Asked) {
        self.0.set(Some(asked));
    }
}

/// Answers the requests of one place, one after the other. It is made once and never moved, because it is large: it has
/// room for all that a request needs on its way. A request ends without an answer when the client resets the stream, and
/// so does what is under way for it.
pub(in crate::listener) async fn answer_all(client: Rc<Client>, connection: Shared, inbox: Rc<Inbox>) {
    loop {
        let asked = poll_fn(|_| inbox.0.take().map_or(Poll::Pending, Poll::Ready)).await;
        let place = Place { connection: Rc::clone(&connection), number: asked.place };
        let body = asked.body.map(|length| (asked.stream, length));
        let (response, head_only) = match asked.head {
            Ok(parts) => {
                let head_only = parts.method == Method::HEAD;
                let expects = body.is_some() && parts.headers.contains_key(header::EXPECT);
                let body = body.map(|(stream, length)| {
                    Http2Body::new(Rc::clone(&connection), place.number, stream, length, expects)
                });
                let request = Request::from_parts(parts, ClientBody::from(body));
                let mut forwarding = pin!(proxy::forward(Rc::clone(&client), request));
                let response = poll_fn(|cx| place.poll_unless_reset(cx, |cx| forwarding.as_mut().poll(cx)));
                (response.await, head_only)
            }
            Err(failure) => (Some(refuse(&client, &failure)), false),
        };
        if let Some(response) = response
            && let Some(body) = place.begin(&client, response, head_only)
        {
            send(&place, body).await;
        }
    }
}

/// The answer to a head that did not become a request.
fn refuse(client: &Client, failure: &Failure) -> Response<Body> {
    client.refused(failure.reason);
    respond::refusal_over_http2(failure)
}

/// Sends a body piece by piece, as the client gives room. The next piece is asked for when the one before has gone.
async fn send(place: &Place, mut body: Body) {
    let (mut piece, mut ends) = (Bytes::new(), false);
    let sent = poll_fn(|cx| place.poll_send(cx, &mut body, &mut piece, &mut ends)).await;
    if let Err(Broken) = sent {
        place.connection.borrow_mut().send_reset(place.number, ErrorCode::InternalError);
    }
}

/// The response cannot be sent to its end.
struct Broken;

impl Place {
    /// Runs `step` until it is done, or the client has reset the stream: then nothing. The connection tells of that.
    fn poll_unless_reset<T>(
        &self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        if self.connection.borrow().is_reset(self.number) {
            return Poll::Ready(None);
        }
        step(cx).map(Some)
    }

    /// Sends the head of a response, which says when it was made, and how long it is, if that is known. Gives the body,
    /// if there is one to be sent.
    fn begin(&self, client: &Client, response: Response<Body>, head_only: bool) -> Option<Body> {
        let worker = client.worker();
        let (head, body) = response.into_parts();
        let ends = head_only || body.is_end_stream();
        let lacking = Lacking {
            date: worker.builder.date.at(worker.clock.now()),
            length: body.size_hint().exact().filter(|length| *length > 0),
        };
        self.connection.borrow_mut().send_head(self.number, head.status, &head.headers, &lacking, ends);
        worker.spare_headers.give(head.headers);
        (!ends).then_some(body)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        body: &mut Body,
        piece: &mut Bytes,
        ends: &mut bool,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let sent = self.connection.borrow_mut().send_data(self.number, piece, *ends);
            match sent {
                Sent::Whole if !*ends => {}
                Sent::Whole | Sent::Reset => return Poll::Ready(Ok(())),
                // The connection tells when there is room. Until then, who waits gives up when the request does.
                Sent::Waits => return body.poll_failed(cx).map(|_| Err(Broken)),
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => *ends = true,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        *piece = data;
                        *ends = body.is_end_stream();
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.connection.borrow_mut().send_trailers(self.number, &trailers);
                        return Poll::Ready(Ok(()));
                    }
                },
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response over HTTP/2 breaks off");
                    return Poll::Ready(Err(Broken));
                }
            }
        }
    }
}
