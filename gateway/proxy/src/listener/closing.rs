//! How a connection ends whose client may still send.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::client::{Client, Order};
use super::wire::Wire;

/// Says that nothing more comes, and gives the client the time to read what was said before: a socket that is closed with
/// unread bytes sends a reset, and that may overtake it.
pub(super) async fn linger(client: &Client, wire: &Wire) {
    client.lingers();
    if let Some(Ok(())) = unless_aborted(client, |cx| wire.poll_shutdown(cx)).await {
        unless_aborted(client, |cx| wire.poll_drain(cx)).await;
    }
}

/// Waits for `step`, unless the connection is to close now: then nothing.
pub(super) async fn unless_aborted<T>(
    client: &Client,
    mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    poll_fn(|cx| {
        if client.take_order(cx) == Some(Order::Abort) {
            return Poll::Ready(None);
        }
        step(cx).map(Some)
    })
    .await
}
