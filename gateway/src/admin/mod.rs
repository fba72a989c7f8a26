//! What the gateway shows of itself: the status pages for the kubelet and Prometheus, the admin pages for people.

mod explain;
mod finding_gauge;
mod pages;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;

pub(crate) use finding_gauge::FindingGauge;
pub(crate) use pages::View;
pub(crate) use token::Token;

/// A bound socket for pages; bound early, so that a taken port is told before anything else starts.
#[derive(Debug)]
pub(crate) struct Socket(TcpListener);

/// Binds the socket of a setting.
///
/// # Errors
/// The address cannot be bound; the message names the setting.
pub(crate) async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<Socket> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("--{setting} {address} cannot be bound: is another process on that port? Choose another with --{setting}")
    })?;
    Ok(Socket(listener))
}

/// Serves the status pages.
pub(crate) fn serve_status(socket: Socket, view: Arc<View>) {
    serve(socket, pages::status(view));
}

/// Serves the admin pages, to those with the token where there is one.
pub(crate) fn serve_admin(socket: Socket, view: Arc<View>, token: Option<Token>) {
    let pages = pages::status(Arc::clone(&view)).merge(pages::admin(view));
    serve(socket, token::guard(pages, token));
}

fn serve(socket: Socket, pages: Router) {
    tokio::spawn(async move {
        // axum's server survives failing accepts by itself and ends only with the process.
        if let Err(error) = axum::serve(socket.0, pages).await {
            tracing::error!(%error, "a server of status or admin pages ended");
        }
    });
}
