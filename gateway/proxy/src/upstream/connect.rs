//! A new connection to an endpoint.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::connection::Connection;
use crate::cluster::Endpoint;
use crate::worker::Worker;

/// How long sent bytes may go unacknowledged before the kernel gives the connection up (an endpoint's node that is
/// gone without a word). Long enough for a loaded network, far below the kernel's own quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How often a connection that does not open looks whether its endpoint is still there.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// It did not open in time.
    #[error("the connection did not open in time")]
    TimedOut,
    /// The endpoint, or the network on the way to it, refused.
    #[error("the connection was refused: {0}")]
    Refused(#[source] io::Error),
    /// This side has run out of descriptors, ports or memory; it says nothing of the endpoint.
    #[error("no resources for a connection: {0}")]
    Exhausted(#[source] io::Error),
}

/// Opens a connection.
///
/// # Errors
/// If the endpoint does not take it, in time.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    timeout: Duration,
) -> Result<Box<Connection>, ConnectError> {
    let stream = open(endpoint, timeout).await?;
    prepare(&stream).map_err(ConnectError::Refused)?;
    Ok(Connection::new(stream, worker))
}

/// The address of a pod that is gone answers nothing at all. A request need not wait the whole time-out for it once the
/// endpoint has left.
async fn open(endpoint: &Endpoint, timeout: Duration) -> Result<TcpStream, ConnectError> {
    let mut opening = pin!(TcpStream::connect(endpoint.address()));
    let mut left = timeout;
    loop {
        let step = left.min(LOOK);
        match tokio::time::timeout(step, &mut opening).await {
            Ok(opened) => return opened.map_err(ConnectError::from),
            Err(_) if endpoint.is_retired() => {
                return Err(ConnectError::Refused(io::ErrorKind::HostUnreachable.into()));
            }
            Err(_) if left == step => return Err(ConnectError::TimedOut),
            Err(_) => left -= step,
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        // EMFILE, ENFILE, ENOBUFS, ENOMEM have no kind of their own in std.
        const EXHAUSTED: [i32; 4] = [24, 23, 105, 12];
        let ours = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
            || error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code));
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ if ours => Self::Exhausted(error),
            _ => Self::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_side_lacks_says_nothing_of_the_endpoint() {
        for (code, ours) in [(24, true), (99, true), (105, true), (111, false), (113, false)] {
            let error = ConnectError::from(io::Error::from_raw_os_error(code));
            assert_eq!(matches!(error, ConnectError::Exhausted(_)), ours, "{error}");
        }
    }
}
