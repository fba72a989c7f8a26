//! What the gateway shows of itself: the status pages for the kubelet and Prometheus, the admin pages for people.

mod explain;
mod finding_gauge;
mod pages;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

pub(crate) use finding_gauge::FindingGauge;
pub(crate) use pages::View;
pub(crate) use token::{Followed as FollowedToken, Token};

/// Connections to one address at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last, its one request and answer included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait when connections cannot be accepted, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
pub(crate) fn serve_admin(socket: Socket, view: Arc<View>, token: Option<watch::Receiver<Token>>) {
    let pages = pages::status(Arc::clone(&view)).merge(pages::admin(view));
    serve(socket, token::guard(pages, token));
}

/// Serves pages to few callers at a time, each of whom must be quick: nobody may eat up the process's file descriptors
/// here.
fn serve(socket: Socket, pages: Router) {
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            match socket.0.accept().await {
                Ok((stream, _)) => {
                    let pages = pages.clone();
                    tokio::spawn(async move {
                        converse(stream, pages).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the status or admin pages cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

async fn converse(stream: TcpStream, pages: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the status or admin pages broke"),
        Err(_) => tracing::debug!("a connection to the status or admin pages took too long"),
    }
}
