//! One client connection, from the first byte to the last: HTTP/1.1, or HTTP/2 if it begins with its preface.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use portolan_model::Protocol;
use tokio::net::TcpStream;

use super::client::{Client, ClientIo, Order};
use super::handshake::handshake;
use super::stream::Stream;
use crate::config::ProxyConfig;
use crate::error::Reason;
use crate::http::client_body::ClientBody;
use crate::http::{proxy, respond};
use crate::telemetry::Record;

/// Windows of an HTTP/2 client, in bytes: what one stream and one connection may send before it is read here.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What one HTTP/2 stream may have in its send buffer.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// hyper takes heads that are larger by this than allowed, so that they get an answer of ours; what is larger still is
/// refused by hyper, without a word.
const HEAD_ROOM: usize = 16 * 1024;

/// How connections are served; one for each worker.
pub(crate) type Builder = auto::Builder<LocalExecutor>;

/// Runs hyper's tasks for HTTP/2 streams on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// How connections are served under this configuration.
pub(crate) fn builder(config: &ProxyConfig) -> Builder {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().max_buf_size(config.max_head_bytes.saturating_add(HEAD_ROOM));
    builder
        .http2()
        .max_concurrent_streams(config.max_http2_streams)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX));
    builder
}

/// Serves a connection until either side closes it. Dropping the future closes it at once.
pub(super) async fn serve(client: Rc<Client>, socket: TcpStream) {
    let watched = Watched(Rc::clone(&client));
    let worker = Rc::clone(client.worker());
    let stream = match (client.listening.listener.protocol, &worker.acceptor) {
        (Protocol::Http, _) => Stream::Plain(socket),
        (Protocol::Https, Some(acceptor)) => {
            // Boxed, so that connections in the clear have no room for it.
            let Some(stream) = Box::pin(handshake(&client, acceptor, socket)).await else { return };
            stream
        }
        // The reconciler opens no such listener.
        (Protocol::Https, None) => return,
    };
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let client = Rc::clone(&client);
        async move { Ok::<_, Infallible>(proxy::forward(client, request.map(ClientBody::from)).await) }
    });
    let client = &watched.0;
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(client)));
    let mut connection = pin!(worker.builder.serve_connection(io, TowerToHyperService::new(service)));
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
        note_error(client, &*error);
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
fn note_error(client: &Client, error: &(dyn std::error::Error + 'static)) {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
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
