//! How a connection in the clear begins: as one of HTTP/2, or otherwise.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::client::{Client, Order};
use super::stream::Stream;

/// What every connection over HTTP/2 begins with (RFC 9113 section 3.4), and no other one does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at once, in bytes.
const PIECE: usize = 8 * 1024;

/// How a connection begins.
#[derive(Debug)]
pub(super) struct Beginning {
    /// What has been read of it.
    pub(super) bytes: BytesMut,
    /// Whether that begins with the preface of HTTP/2.
    pub(super) is_http2: bool,
}

/// Reads as much as it takes to know. Nothing, if the connection ends without a word or is told to end meanwhile.
pub(super) async fn read(client: &Client, stream: &mut Stream) -> io::Result<Option<Beginning>> {
    let mut bytes = BytesMut::new();
    let mut finish = false;
    let beginning = poll_fn(|cx| {
        loop {
            match client.take_order(cx) {
                // There is no request yet that could be finished first.
                Some(order) if order == Order::Abort || bytes.is_empty() => return Poll::Ready(Ok(None)),
                order => finish |= order.is_some(),
            }
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
            bytes.extend_from_slice(piece.filled());
            if bytes.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let is_http2 = bytes.starts_with(PREFACE);
            if is_http2 || piece.filled().is_empty() || !PREFACE.starts_with(&bytes) {
                return Poll::Ready(Ok(Some(Beginning { bytes: std::mem::take(&mut bytes), is_http2 })));
            }
        }
    })
    .await;
    if finish {
        // For whoever serves it from here on.
        client.give(Order::Finish);
    }
    beginning
}
