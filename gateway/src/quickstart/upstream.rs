//! The quickstart's upstream servers: real HTTP servers on loopback that say who they are.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

type Body = http_body_util::Full<Bytes>;

/// One running server. Dropping it closes its socket and all its connections at once, as a killed process would.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Starts a server called `name` on a free port of loopback.
    pub(super) async fn start(name: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, name.clone()));
        Ok(Self { name, address, task })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, name: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(converse(stream, name.clone())); }
                Err(error) => {
                    tracing::warn!(%error, "the sample server cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, name: String) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &name))));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the sample server ended early");
    }
}

fn answer(request: &Request<Incoming>, name: &str) -> Response<Body> {
    let text = format!("{name} answers {} {}\n", request.method(), request.uri().path());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}
