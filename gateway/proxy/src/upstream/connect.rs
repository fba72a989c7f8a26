//! A new connection to an endpoint.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::cluster::Endpoint;
use crate::http::body::RequestBody;
use crate::worker::Worker;

/// How long sent bytes may go unacknowledged before the kernel gives the connection up (an endpoint's node that is
/// gone without a word). Long enough for a loaded network, far below the kernel's own quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How often a connection that does not open looks whether its endpoint is still there.
const LOOK: Duration = Duration::from_millis(100);

/// So many heads of the largest size may come in place of one; what hyper reads of the body before the head has been
/// told of is less.
const FLOOD: u64 = 4;

/// An open connection that can carry one request at a time.
pub(crate) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) wire: Rc<Wire>,
}

/// The socket under a connection, and the bytes that went through it. hyper's driver task holds the other reference.
pub(super) struct Wire {
    stream: RefCell<TcpStream>,
    written: Cell<u64>,
    read: Cell<u64>,
    /// While the head of a response is awaited: `read` may not pass it.
    most_read: Cell<Option<u64>>,
    flooded: Cell<bool>,
}

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
) -> Result<Connection, ConnectError> {
    let stream = open(endpoint, timeout).await?;
    prepare(&stream).map_err(ConnectError::Refused)?;
    let wire = Rc::new(Wire::new(stream));
    let io = TokioIo::new(WireIo(Rc::clone(&wire)));
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(worker.config().max_head_bytes)
        .handshake(io)
        .await
        .map_err(|error| ConnectError::Refused(io::Error::other(error)))?;
    worker.metrics.upstream_opened.one();
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        // How a connection ended is the business of the request that was on it, and that has been told.
        let ended = driver.await;
        tracing::trace!(?ended, "upstream connection ended");
        worker.metrics.upstream_closed.one();
    });
    Ok(Connection { sender, wire })
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

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream: RefCell::new(stream),
            written: Cell::new(0),
            read: Cell::new(0),
            most_read: Cell::new(None),
            flooded: Cell::new(false),
        }
    }

    /// From now on only interim responses and one head may come: not more than a few heads of the largest size, else
    /// an endpoint could send interim responses for as long as it likes.
    pub(super) fn await_head(&self, max_head_bytes: usize) {
        let most = FLOOD.saturating_mul(max_head_bytes as u64);
        self.most_read.set(Some(self.read.get().saturating_add(most)));
    }

    /// The head is here, or is not awaited any more.
    pub(super) fn head_is_here(&self) {
        self.most_read.set(None);
    }

    /// Whether too much came before the head.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// Bytes written and read so far.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.written.get(), self.read.get())
    }

    /// Asks the kernel whether the other side has closed an idle connection, or sent what nobody asked for. One system
    /// call, so only for requests that cannot be sent again.
    pub(super) fn is_quiet(&self) -> bool {
        let stream = self.stream.borrow();
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&*stream).peek(&mut byte) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}

/// hyper's end of a [`Wire`]. The borrow lasts for one poll, and a poll of the socket runs no other code.
struct WireIo(Rc<Wire>);

impl AsyncRead for WireIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buffer);
        self.0.read.set(self.0.read.get() + (buffer.filled().len() - before) as u64);
        if self.0.most_read.get().is_some_and(|most| self.0.read.get() > most) {
            self.0.flooded.set(true);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many interim responses",
            )));
        }
        polled
    }
}

impl WireIo {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.0.written.set(self.0.written.get() + *bytes as u64);
        }
        polled
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, pieces);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is polled between the other side's act and the question: the kernel alone knows.
    #[tokio::test]
    async fn a_connection_is_quiet_until_the_other_side_closes_or_speaks() {
        use std::io::Write as _;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let acts: [fn(std::net::TcpStream) -> Option<std::net::TcpStream>; 2] = [
            |_closed| None,
            |mut other| {
                other.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
                Some(other)
            },
        ];
        for act in acts {
            let stream = TcpStream::connect(address).await.unwrap();
            let (other, _) = listener.accept().unwrap();
            let wire = Wire::new(stream);
            assert!(wire.is_quiet());
            let _kept = act(other);
            assert!(!wire.is_quiet());
        }
    }

    #[test]
    fn what_this_side_lacks_says_nothing_of_the_endpoint() {
        for (code, ours) in [(24, true), (99, true), (105, true), (111, false), (113, false)] {
            let error = ConnectError::from(io::Error::from_raw_os_error(code));
            assert_eq!(matches!(error, ConnectError::Exhausted(_)), ours, "{error}");
        }
    }
}
