//! One stream: a request, and what is answered to it.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response, header};
use http_body::Body as _;

use crate::http::body::Body;
use crate::http::client_body::ClientBody;
use crate::http::http2_body::Http2Body;
use crate::http::proxy;
use crate::listener::Client;

/// Answers the request of one stream. It ends without an answer when the client resets the stream, and so does what is
/// under way for it.
pub(super) async fn answer(
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let Some(mut response) = forward(Rc::clone(&client), request, &mut respond).await else { return };
    complete_head(&client, &mut response);
    drop(client);
    let (head, body) = response.into_parts();
    let ends = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(_) if ends => {}
        Ok(mut stream) => send(body, &mut stream).await,
        Err(error) => {
            tracing::debug!(%error, "an answer cannot be sent over HTTP/2");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

async fn forward(
    client: Rc<Client>,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Option<Response<Body>> {
    let (parts, stream) = request.into_parts();
    let Some(body) = Http2Body::new(stream, &parts.headers) else {
        // Malformed, as h2 treats all that is (RFC 9113 section 8.1.1).
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return None;
    };
    let request = Request::from_parts(parts, ClientBody::from(body));
    let mut forwarding = pin!(proxy::forward(client, request));
    poll_fn(|cx| match forwarding.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    })
    .await
}

/// What is said in every response: how long it is, if that is known, and when it was made.
fn complete_head(client: &Client, response: &mut Response<Body>) {
    let length = response.body().size_hint().exact();
    let ends = response.body().is_end_stream();
    let headers = response.headers_mut();
    if let (Some(length), false) = (length, ends || headers.contains_key(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if !headers.contains_key(header::DATE) {
        let worker = client.worker();
        if let Some(date) = worker.builder.date.at(worker.clock.now()) {
            headers.insert(header::DATE, date);
        }
    }
}

/// Sends a body piece by piece, as the client gives room.
async fn send(body: Body, stream: &mut SendStream<Bytes>) {
    let mut body = pin!(body);
    let mut first = true;
    loop {
        let next = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => stream.poll_reset(cx).map(|_| None),
        });
        let frame = match next.await {
            // The client has reset the stream.
            None => return,
            Some(Some(Ok(frame))) => frame,
            Some(Some(Err(error))) => {
                tracing::debug!(%error, "a response over HTTP/2 breaks off");
                return stream.send_reset(Reason::INTERNAL_ERROR);
            }
            Some(None) => return sent(stream.send_data(Bytes::new(), true)),
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                return frame.into_trailers().map_or((), |trailers| sent(stream.send_trailers(trailers)));
            }
        };
        // The first piece is buffered if there is no room for it. Most bodies have no other, and asking costs.
        if !first && !data.is_empty() && !has_room(stream).await {
            return;
        }
        first = false;
        let ends = body.is_end_stream();
        let result = stream.send_data(data, ends);
        if ends || result.is_err() {
            return sent(result);
        }
    }
}

/// Waits until the client gives room for something; whether it ever does.
///
/// No more than one byte is asked for: room that is kept for one stream is missing for all others, and h2 asks for the
/// rest when it has the data.
async fn has_room(stream: &mut SendStream<Bytes>) -> bool {
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        loop {
            if stream.capacity() > 0 {
                return Poll::Ready(true);
            }
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
    })
    .await
}

/// A stream that takes nothing has been reset, and nobody waits for the rest.
fn sent(result: Result<(), h2::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a response over HTTP/2 cannot be sent");
    }
}
