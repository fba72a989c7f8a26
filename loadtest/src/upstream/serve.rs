//! Connections in, answers out, and the end.

use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::End;
use super::answer::Answerer;
use super::connection::{Shared, serve};

/// Serves until told to end. Blocks its thread; when it returns every socket is closed.
pub(super) fn run(listeners: Vec<std::net::TcpListener>, answerer: Answerer, ends: watch::Receiver<End>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime needs only memory and a few file descriptors");
    let shared = Shared::new(answerer);
    runtime.block_on(async move {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let listener = TcpListener::from_std(listener).expect("the listener does not block");
            accepting.spawn_local(accept(listener, shared.clone(), ends.clone()));
        }
        while accepting.join_next().await.is_some() {}
    });
}

async fn accept(listener: TcpListener, shared: Rc<Shared>, mut ends: watch::Receiver<End>) {
    let mut connections = JoinSet::new();
    let mut end = ends.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(serve(stream, shared.clone(), ends.clone()));
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
    drain_queue(&listener, &mut connections, &shared, &ends).await;
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
    shared: &Rc<Shared>,
    ends: &watch::Receiver<End>,
) {
    while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await {
        connections.spawn_local(serve(stream, shared.clone(), ends.clone()));
    }
}
