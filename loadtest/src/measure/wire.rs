//! The bytes of a connection, in the clear or in TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Plan;
use super::fault::Fault;
use crate::load::FailureKind;

/// An open connection. Dropping it closes the socket.
#[derive(Debug)]
pub enum Wire {
    /// In the clear.
    Plain(TcpStream),
    /// In TLS, after its handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Opens one, with the protocol that the plan wants.
    pub(super) async fn open(plan: &Plan) -> Result<Self, Fault> {
        let stream = TcpStream::connect(plan.address).await.map_err(|error| Fault::connecting(&error))?;
        stream.set_nodelay(true).map_err(|error| Fault::connecting(&error))?;
        let Some(tls) = &plan.tls else { return Ok(Self::Plain(stream)) };
        Self::shake_hands(stream, tls.config.clone(), tls.name.clone(), plan.protocol.alpn()).await
    }

    async fn shake_hands(
        stream: TcpStream,
        config: std::sync::Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        protocol: &'static [u8],
    ) -> Result<Self, Fault> {
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| Fault::new(FailureKind::ConnectFailed, format!("TLS handshake: {error}")))?;
        let chosen = stream.get_ref().1.alpn_protocol();
        // A server without ALPN speaks HTTP/1.1.
        if chosen.unwrap_or(b"http/1.1") != protocol {
            let reason = format!("the server does not speak {} over TLS", String::from_utf8_lossy(protocol));
            return Err(Fault::new(FailureKind::Protocol, reason));
        }
        Ok(Self::Tls(Box::new(stream)))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
