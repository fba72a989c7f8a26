//! One active check of one endpoint.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portolan_model::{Probe, ResourceRef};
use tokio::net::TcpStream;

/// A response head that does not fit into this is not a good answer.
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// What is asked of each endpoint of a cluster.
#[derive(Debug)]
pub(super) enum Question {
    Tcp,
    Http { path: Uri, host: HeaderValue },
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} is not a path to check; write it as in /healthz")]
pub(super) struct InvalidQuestion {
    path: String,
}

impl Question {
    /// The question of a policy, asked of the endpoints of `source`, whose name is the `Host`.
    ///
    /// # Errors
    /// The path is not one.
    pub(super) fn new(probe: &Probe, source: &ResourceRef) -> Result<Self, InvalidQuestion> {
        let Probe::Http(path) = probe else {
            return Ok(Self::Tcp);
        };
        let invalid = || InvalidQuestion { path: path.clone() };
        let uri = path.parse::<Uri>().map_err(|_| invalid())?;
        if !path.starts_with('/') || uri.authority().is_some() {
            return Err(invalid());
        }
        let host = match &*source.namespace {
            "" => source.name.to_string(),
            namespace => format!("{}.{namespace}", source.name),
        };
        let host = HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("portolan"));
        Ok(Self::Http { path: uri, host })
    }

    /// Asks an endpoint whether it works. Dropping the future closes the connection.
    pub(super) async fn ask(&self, address: SocketAddr) -> bool {
        let answer = match self {
            Self::Tcp => TcpStream::connect(address).await.map(|_| true),
            Self::Http { path, host } => http(address, path, host).await,
        };
        answer.unwrap_or(false)
    }
}

/// Asks on a connection of its own, so that a full accept queue or a dead process is noticed.
async fn http(address: SocketAddr, path: &Uri, host: &HeaderValue) -> io::Result<bool> {
    let stream = TcpStream::connect(address).await?;
    let request = Request::get(path.clone())
        .header(HOST, host)
        .header(USER_AGENT, "portolan-health")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let mut client = http1::Builder::new();
    client.max_buf_size(MOST_HEAD_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut response = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        // The connection may end with the response on its way to us.
        _ = connection => response.await,
    };
    response.map(|response| (200..400).contains(&response.status().as_u16())).map_err(io::Error::other)
}
