//! The handshake of a connection over TLS, before its first request.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::net::TcpStream;

use super::client::Client;
use super::stream::Stream;
use crate::tls::{Acceptor, HandshakeFailure, is_http2};

/// Makes the handshake, in which both sides agree on HTTP/2 (true) or HTTP/1.1; nothing, if it fails or the connection is
/// told to end meanwhile. The sweep counts the time-out, and this every other failure.
pub(super) async fn handshake(
    client: &Client,
    acceptor: &Acceptor,
    socket: TcpStream,
) -> Option<(Stream, bool)> {
    let mut accept = pin!(acceptor.accept(socket));
    let accepted = poll_fn(|cx| {
        // There is no request yet that could be finished first.
        if client.take_order(cx).is_some() {
            return Poll::Ready(None);
        }
        accept.as_mut().poll(cx).map(Some)
    })
    .await?;
    match accepted {
        Ok(stream) => {
            let is_http2 = is_http2(stream.get_ref().1.alpn_protocol());
            client.shook_hands(is_http2);
            Some((Stream::Tls(Box::new(stream)), is_http2))
        }
        Err(error) => {
            let failure = HandshakeFailure::of(&error);
            client.listening.series.handshake_failed(failure);
            tracing::debug!(%error, reason = failure.as_str(), peer = %client.peer.address, "a handshake failed");
            None
        }
    }
}
