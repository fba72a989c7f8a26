//! One client connection, from the first byte to the last: HTTP/1.1, or HTTP/2 if it begins with its preface.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_model::Protocol;
use tokio::net::TcpStream;

use super::client::{Client, ClientIo, Order};
use super::handshake::handshake;
use super::http2::{self, Http2};
use super::preface::{self, Beginning};
use super::stream::Stream;
use crate::config::ProxyConfig;
use crate::error::Reason;
use crate::http::client_body::ClientBody;
use crate::http::{proxy, respond};
use crate::telemetry::Record;

/// hyper takes heads that are larger by this than allowed, so that they get an answer of ours; what is larger still is
/// refused by hyper, without a word.
const HEAD_ROOM: usize = 16 * 1024;

/// How connections are served; one for each worker.
pub(crate) struct Builder {
    http1: http1::Builder,
    pub(super) http2: Http2,
}

/// How connections are served under this configuration.
pub(crate) fn builder(config: &ProxyConfig) -> Builder {
    let mut http1 = http1::Builder::new();
    http1.max_buf_size(config.max_head_bytes.saturating_add(HEAD_ROOM));
    Builder { http1, http2: Http2::new(config) }
}

/// Serves a connection until either side closes it. Dropping the future closes it at once.
pub(super) async fn serve(client: Rc<Client>, socket: TcpStream) {
    let watched = Watched(Rc::clone(&client));
    let worker = Rc::clone(client.worker());
    let (stream, beginning) = match (client.listening.listener.protocol, &worker.acceptor) {
        (Protocol::Http, _) => {
            let mut stream = Stream::Plain(socket);
            let Ok(Some(beginning)) = preface::read(&client, &mut stream).await else { return };
            (stream, beginning)
        }
        (Protocol::Https, Some(acceptor)) => {
            // Boxed, so that connections in the clear have no room for it.
            let Some((stream, is_http2)) = Box::pin(handshake(&client, acceptor, socket)).await else {
                return;
            };
            (stream, Beginning { bytes: BytesMut::new(), is_http2 })
        }
        // The reconciler opens no such listener.
        (Protocol::Https, None) => return,
    };
    if beginning.is_http2 {
        let io = ClientIo::http2(stream, Rc::clone(&client), beginning.bytes);
        // Boxed, so that connections of HTTP/1.1 have no room for it.
        if let Err(error) = Box::pin(http2::serve(&client, io)).await {
            tracing::debug!(%error, peer = %client.peer.address, "a client connection ended with an error");
        }
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let client = Rc::clone(&client);
        async move { Ok::<_, Infallible>(proxy::forward(client, request.map(ClientBody::from)).await) }
    });
    let client = &watched.0;
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(client), beginning.bytes));
    let mut connection = pin!(worker.builder.http1.serve_connection(io, service));
    let ended = poll_fn(|cx| {
        match client.take_order(cx) {
            Some(Order::Abort) => return Poll::Ready(Ok(())),
            Some(Order::Finish) => connection.as_mut().graceful_shutdown(),
            None => {}
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended {
        note_error(client, &error);
    }
}

/// Takes the connection off the worker's list, however it ended.
struct Watched(Rc<Client>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// What hyper answered by itself (a head that is no HTTP, or too large) appears in the metrics and the access log here;
/// the rest has been told by the exchange that it broke.
fn note_error(client: &Client, error: &hyper::Error) {
    let reason = if error.is_parse_too_large() {
        Some(Reason::HeadersTooLarge)
    } else {
        error.is_parse().then_some(Reason::BadRequest)
    };
    if let Some(reason) = reason {
        Record::refused(Rc::clone(client.worker()), client.peer.address, respond::status(reason), reason);
    }
    tracing::debug!(%error, peer = %client.peer.address, "a client connection ended with an error");
}
