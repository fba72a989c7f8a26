//! A client's connection over HTTP/2, from its preface to its last stream.
//!
//! Its streams are answered by the connection's own task and not by tasks of their own. That costs less for each
//! request, and one turn of the task does everything that has come up since the one before, in this order: streams whose
//! endpoint has answered go on; the connection reads what has come and writes all answers at once; new requests begin.

mod stream;
mod streams;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::Request;

use self::streams::Streams;
use super::client::{Client, ClientIo, Order};
use crate::config::ProxyConfig;

/// What a client may send before it is read here, in bytes: of one stream, and of the connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What one stream may have in its send buffer, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// How connections over HTTP/2 are served; one for each worker.
pub(crate) struct Http2 {
    builder: h2::server::Builder,
}

impl Http2 {
    /// How they are served under this configuration.
    pub(super) fn new(config: &ProxyConfig) -> Self {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(config.max_http2_streams)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX));
        Self { builder }
    }
}

/// Serves a connection until either side closes it. Dropping the future closes it at once.
pub(super) async fn serve(client: &Rc<Client>, io: ClientIo) -> Result<(), h2::Error> {
    client.speaks_http2();
    let mut closing = false;
    let mut handshake = pin!(client.worker().builder.http2.builder.handshake::<_, Bytes>(io));
    let shook_hands = poll_fn(|cx| {
        match client.take_order(cx) {
            Some(Order::TimeOut | Order::Abort) => return Poll::Ready(None),
            Some(Order::Finish) => closing = true,
            None => {}
        }
        handshake.as_mut().poll(cx).map(Some)
    });
    let Some(connection) = shook_hands.await.transpose()? else { return Ok(()) };
    let answer = |request, respond| stream::answer(Rc::clone(client), request, respond);
    let mut serving = Serving { connection, streams: Streams::default(), answer };
    if closing {
        serving.connection.graceful_shutdown();
    }
    poll_fn(|cx| {
        let order = client.take_order(cx);
        match order {
            Some(Order::TimeOut | Order::Abort) => return Poll::Ready(Ok(())),
            Some(Order::Finish) => serving.connection.graceful_shutdown(),
            None => {}
        }
        serving.turn(cx, order.is_some())
    })
    .await
}

/// A connection at work.
struct Serving<F, A> {
    connection: Connection<ClientIo, Bytes>,
    streams: Streams<F>,
    answer: A,
}

impl<F, A> Serving<F, A>
where
    F: Future<Output = ()>,
    A: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
{
    /// Does what there is to do; `told` tells that it is the connection which was told to do something.
    fn turn(&mut self, cx: &Context<'_>, told: bool) -> Poll<Result<(), h2::Error>> {
        self.streams.begin(cx);
        self.streams.poll_woken();
        if self.streams.take_connection() || told {
            if let Poll::Ready(ended) = self.poll_connection() {
                return Poll::Ready(ended);
            }
            self.streams.poll_fresh();
        }
        self.streams.end();
        Poll::Pending
    }

    /// Reads and writes as much as goes through now; ready when the connection has ended.
    fn poll_connection(&mut self) -> Poll<Result<(), h2::Error>> {
        let waker = self.streams.connection.clone();
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.connection.poll_accept(&mut cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.streams.insert((self.answer)(request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                // Also what was written has been sent.
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
