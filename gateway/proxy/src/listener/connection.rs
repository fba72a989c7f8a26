//! One client connection, from the first byte to the last: ordinary HTTP/1.1 in a loop of our own, and by hyper what is
//! less ordinary, and HTTP/2 if the connection begins with its preface.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder as HyperBuilder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_model::Protocol;
use tokio::net::TcpStream;

use super::client::{Client, ClientIo, Order};
use super::date::Date;
use super::handshake::handshake;
use super::http1::{self, Other};
use super::http2::{self, Http2};
use super::screen::Screen;
use super::stream::Stream;
use super::wire::Wire;
use crate::config::ProxyConfig;
use crate::error::Reason;
use crate::http::client_body::ClientBody;
use crate::http::proxy;

/// hyper takes heads that are larger by this than allowed. They do not get that far: the screen refuses them with an answer of
/// ours.
const HEAD_ROOM: usize = 16 * 1024;

/// How connections are served; one for each worker.
pub(crate) struct Builder {
    hyper: HyperBuilder,
    pub(super) http2: Http2,
    pub(super) date: Date,
}

/// How connections are served under this configuration.
pub(crate) fn builder(config: &ProxyConfig) -> Builder {
    let mut hyper = HyperBuilder::new();
    hyper.max_buf_size(config.max_head_bytes.saturating_add(HEAD_ROOM));
    Builder { hyper, http2: Http2::new(config), date: Date::default() }
}

/// Serves a connection until either side closes it. Dropping the future closes it at once.
pub(super) async fn serve(client: Rc<Client>, socket: TcpStream) {
    let watched = Watched(client);
    let client = &watched.0;
    let (stream, is_http2) = match (client.listening.listener.protocol, &client.worker().acceptor) {
        (Protocol::Http, _) => (Stream::Plain(socket), None),
        (Protocol::Https, Some(acceptor)) => {
            // Boxed, so that connections in the clear have no room for it.
            let Some((stream, is_http2)) = Box::pin(handshake(client, acceptor, socket)).await else {
                return;
            };
            (stream, Some(is_http2))
        }
        // The reconciler opens no such listener.
        (Protocol::Https, None) => return,
    };
    let wire = Rc::new(Wire::new(stream, client.head_limits(), Rc::clone(&client.worker().buffers)));
    client.comes_through(&wire);
    let other = match is_http2 {
        Some(true) => Some(Other::Http2),
        // In the clear, a preface says that it is HTTP/2.
        Some(false) | None => http1::serve(client, &wire, is_http2.is_none()).await,
    };
    // Boxed, so that the other connections have no room for them.
    match other {
        Some(Other::Hyper(screen)) => Box::pin(serve_by_hyper(Rc::clone(client), wire, *screen)).await,
        Some(Other::Http2) => Box::pin(http2::serve(client, &wire)).await,
        None => {}
    }
}

async fn serve_by_hyper(client: Rc<Client>, wire: Rc<Wire>, screen: Screen) {
    let worker = Rc::clone(client.worker());
    let io = TokioIo::new(ClientIo::new(wire, screen, Rc::clone(&client)));
    let service = {
        let client = Rc::clone(&client);
        service_fn(move |request: Request<Incoming>| {
            let client = Rc::clone(&client);
            async move { Ok::<_, Infallible>(proxy::forward(client, request.map(ClientBody::from)).await) }
        })
    };
    let mut connection = pin!(worker.builder.hyper.serve_connection(io, service));
    let ended = poll_fn(|cx| {
        match client.take_order(cx) {
            Some(Order::TimeOut) => {
                client.worker().metrics.failed(Reason::RequestTimeout);
                return Poll::Ready(Ok(()));
            }
            Some(Order::Abort) => return Poll::Ready(Ok(())),
            Some(Order::Finish) => connection.as_mut().graceful_shutdown(),
            None => {}
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended {
        note_error(&client, &error);
    }
}

/// Takes the connection off the worker's list, however it ended.
struct Watched(Rc<Client>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// What hyper answered by itself (a head that the screen took and hyper does not) appears in the metrics and the access log
/// here; the rest has been told by the exchange that it broke.
fn note_error(client: &Client, error: &hyper::Error) {
    let reason = if error.is_parse_too_large() {
        Some(Reason::HeadersTooLarge)
    } else {
        error.is_parse().then_some(Reason::BadRequest)
    };
    if let Some(reason) = reason {
        client.refused(reason);
    }
    tracing::debug!(%error, peer = %client.peer.address, "a client connection ended with an error");
}
