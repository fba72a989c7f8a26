//! Connections in, answers out, and the end.

use std::convert::Infallible;
use std::error::Error as _;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::End;
use super::answer::{Answerer, Dropped};

/// Serves until told to end. Blocks its thread; when it returns every socket is closed.
pub(super) fn run(listeners: Vec<std::net::TcpListener>, answerer: Answerer, ends: watch::Receiver<End>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only memory and a few file descriptors");
    let answerer = Rc::new(answerer);
    LocalSet::new().block_on(&runtime, async move {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let listener = TcpListener::from_std(listener).expect("the listener does not block");
            accepting.spawn_local(accept(listener, answerer.clone(), ends.clone()));
        }
        while accepting.join_next().await.is_some() {}
    });
}

async fn accept(listener: TcpListener, answerer: Rc<Answerer>, mut ends: watch::Receiver<End>) {
    let mut connections = JoinSet::new();
    let mut end = ends.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(serve(stream, answerer.clone(), ends.clone()));
                }
                // No file descriptor left, or a connection that died in the queue: neither ends the server.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            () = told_to_end(&mut end) => break,
        }
    }
    if *ends.borrow() != End::Finish {
        // Leaving drops every connection, and so closes it.
        return;
    }
    // What has connected already is answered; then the port is closed.
    drain_queue(&listener, &mut connections, &answerer, &ends).await;
    drop(listener);
    let killed = async {
        let _told_or_alone = ends.wait_for(|end| matches!(end, End::Kill | End::Crash)).await.is_ok();
    };
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = killed => {}
    }
}

/// Returns when the server is to end, one way or the other (also when nobody is left to say so).
async fn told_to_end(ends: &mut watch::Receiver<End>) {
    let _told_or_alone = ends.wait_for(|end| *end != End::NotYet).await.is_ok();
}

/// Takes the connections that wait in the kernel's queue: closing the listener would reset them.
async fn drain_queue(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    answerer: &Rc<Answerer>,
    ends: &watch::Receiver<End>,
) {
    while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await {
        connections.spawn_local(serve(stream, answerer.clone(), ends.clone()));
    }
}

async fn serve(stream: TcpStream, answerer: Rc<Answerer>, mut ends: watch::Receiver<End>) {
    // An answer is one write; without this its last segment may wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(local) = stream.local_addr() else { return };
    let socket = SockRef::from(&stream).try_clone();
    let service = service_fn(|request| {
        let answerer = answerer.clone();
        async move { answerer.answer(request, local).await }
    });
    let mut connection =
        std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = finishing(&mut ends) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    let reset = ended
        .is_err_and(|error| error.source().and_then(|cause| cause.downcast_ref()) == Some(&Dropped::Reset));
    if let (true, Ok(socket)) = (reset, socket) {
        // With no time to linger, closing sends a reset. If it cannot be set the close is a plain one.
        let _plain_close = socket.set_linger(Some(Duration::ZERO));
    }
}

/// Returns when the server is to finish. A kill is not waited for here: it drops this task.
async fn finishing(ends: &mut watch::Receiver<End>) {
    if ends.wait_for(|end| *end == End::Finish).await.is_err() {
        std::future::pending::<Infallible>().await;
    }
}
