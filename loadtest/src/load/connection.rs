//! One connection, and what is known of it when a request on it fails.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// An open connection. Dropping it closes the socket, whatever was under way.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    socket: Rc<Socket>,
    driver: AbortHandle,
    used: bool,
}

/// Why a request got no head of an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Whether any byte of the request was handed to the kernel.
    pub(super) written: bool,
    /// Whether any byte of an answer came.
    pub(super) begun: bool,
    pub(super) error: hyper::Error,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    written: Cell<u64>,
    read: Cell<u64>,
}

/// What hyper reads and writes; the connection keeps the other half to look at the socket from outside.
struct Wire(Rc<Socket>);

impl Connection {
    /// Opens a connection. Must be called within a `LocalSet`.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let socket = Rc::new(Socket { stream, written: Cell::new(0), read: Cell::new(0) });
        let (sender, driver) = http1::Builder::new()
            .handshake(TokioIo::new(Wire(socket.clone())))
            .await
            .map_err(io::Error::other)?;
        // The driver's error is also the error of the request under way; without one, it is no one's.
        let driver = tokio::task::spawn_local(async move { drop(driver.await) }).abort_handle();
        Ok(Self { sender, socket, driver, used: false })
    }

    /// Whether a request was sent on it before.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// The port on this side.
    pub(super) fn local_port(&self) -> Option<u16> {
        self.socket.stream.local_addr().ok().map(|address| address.port())
    }

    /// Whether a request may be sent now. Asks the kernel: the runtime may not yet have heard that the other side
    /// closed.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.sender.ready().await.is_ok() && !self.socket.has_something_to_read()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.used = true;
        let (written, read) = (self.socket.written.get(), self.socket.read.get());
        self.sender.send_request(request).await.map_err(|error| Unanswered {
            written: self.socket.written.get() > written,
            begun: self.socket.read.get() > read,
            error,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Socket {
    /// True when the other side closed, reset, or spoke without being asked: then no request can be sent on it.
    fn has_something_to_read(&self) -> bool {
        let nothing = SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit(); 1]);
        !matches!(nothing, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    self.0.read.set(self.0.read.get() + count as u64);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Wire {
    fn poll_written(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Socket { stream, written, .. } = &*self.0;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match write(stream) {
                Ok(count) => {
                    written.set(written.get() + count as u64);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.0.stream).shutdown(std::net::Shutdown::Write))
    }
}
