//! Connections taken from one socket, by one worker.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portolan_model::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::client::Client;
use super::connection;
use crate::error::Reason;
use crate::telemetry::ListenerSeries;
use crate::worker::Worker;

/// How long to wait when the process has run out of something that accepting needs. Connections wait in the kernel's
/// queue meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A listener as one worker serves it.
pub(crate) struct Listening {
    pub(crate) listener: Arc<Listener>,
    pub(crate) port: u16,
    pub(crate) series: Arc<ListenerSeries>,
    /// Whether it is being closed: connections from it end with their next response.
    pub(crate) closing: Cell<bool>,
}

/// Accepts until told to stop; then takes what is left in the kernel's queue (those clients believe to be connected),
/// and closes the socket.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    // Told to stop, or nobody is left to tell.
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => admit(&worker, &listening, stream, peer),
                Err(error) => survive(&listening, &error).await,
            },
            _ = &mut stopped => break,
        }
    }
    empty(socket, |stream, peer| admit(&worker, &listening, stream, peer));
}

/// Accepts without waiting until there is nothing left. tokio's own readiness may lag behind the queue, so the kernel
/// is asked directly.
fn empty(socket: TcpListener, mut admit: impl FnMut(TcpStream, SocketAddr)) {
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, peer)) = socket.accept() {
        let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        match ready {
            Ok(stream) => admit(stream, peer),
            Err(error) => tracing::debug!(%error, "an accepted connection was lost"),
        }
    }
}

fn admit(worker: &Rc<Worker>, listening: &Rc<Listening>, stream: TcpStream, peer: SocketAddr) {
    if worker.is_full() {
        listening.series.refused.one();
        worker.metrics.failed(Reason::ConnectionLimit);
        return;
    }
    let client = Client::register(Rc::clone(worker), Rc::clone(listening), peer.ip());
    tokio::task::spawn_local(connection::serve(client, stream));
}

/// Most errors concern the one connection that could not be accepted; when resources are short, others need time to
/// give some back.
async fn survive(listening: &Listening, error: &io::Error) {
    listening.series.accept_errors.one();
    let of_the_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !of_the_connection {
        tracing::warn!(%error, listener = %listening.listener.id, "cannot accept connections; trying again");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_in_the_queue_is_taken_before_the_socket_closes() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let mut taken = Vec::new();
        empty(socket, |_, peer| taken.push(peer));
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        assert_eq!(taken, expected);
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
