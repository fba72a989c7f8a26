//! What an idle connection costs: memory with thousands of them, each of which was asked for something once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::cases::Request;
use super::load;
use super::processes::Tree;
use super::results::Round;
use super::server::Server;

const WARM_UP: Duration = Duration::from_secs(1);
const WARM_UP_CONNECTIONS: u32 = 64;
/// How long one connection may take to be opened and answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the connections one after the other, asks once on each, and compares resident memory before and with them.
///
/// # Errors
/// If one of them cannot be opened or is not answered.
pub(super) async fn memory(
    server: &Server,
    request: Request,
    address: SocketAddr,
    program: &Path,
) -> anyhow::Result<Round> {
    // So that what every proxy allocates once is there before.
    let warm_up = Request { connections: WARM_UP_CONNECTIONS, ..request };
    load::ask(program, warm_up, address, None, WARM_UP).await?;
    let tree = server.tree();
    let before = settled(&tree).await;
    let held = hold(request, address).await?;
    let with_them = settled(&tree).await;
    let added = with_them.saturating_sub(before) as f64;
    let round = Round {
        resident_mib: with_them as f64 / 1024.0,
        connection_kib: Some(added / held.len() as f64),
        ..Round::default()
    };
    for mut connection in held {
        connection.is_open().await.context("a connection that was to be idle was closed")?;
    }
    Ok(round)
}

/// Resident memory in KiB once it has stayed the same for half a second.
async fn settled(tree: &Tree) -> u64 {
    let mut last = tree.resident_kib();
    for _ in 0..10 {
        // Nothing tells when a process has freed what it is going to free.
        sleep(Duration::from_millis(500)).await;
        let now = tree.resident_kib();
        if now.abs_diff(last) * 1000 <= now {
            return now;
        }
        last = now;
    }
    last
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A connection that was answered once.
struct Held(Box<dyn Stream>);

async fn hold(request: Request, address: SocketAddr) -> anyhow::Result<Vec<Held>> {
    let tls = request.tls.then(connector).transpose()?;
    let mut held = Vec::new();
    for number in 1..=request.connections {
        let connection = timeout(PATIENCE, Held::open(address, tls.as_ref(), request.path)).await;
        let connection = connection.context("it took too long").flatten();
        held.push(connection.with_context(|| format!("connection {number} of {}", request.connections))?);
    }
    Ok(held)
}

impl Held {
    async fn open(address: SocketAddr, tls: Option<&TlsConnector>, path: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let mut held = Self(match tls {
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("localhost is a name");
                Box::new(tls.connect(name, stream).await?)
            }
            None => Box::new(stream),
        });
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        held.0.write_all(request.as_bytes()).await?;
        held.0.flush().await?;
        held.answer().await?;
        Ok(held)
    }

    /// Reads one answer to its end.
    async fn answer(&mut self) -> anyhow::Result<()> {
        let mut answer = Vec::new();
        loop {
            let mut piece = [0; 4096];
            match self.0.read(&mut piece).await? {
                0 => bail!("it was closed before its answer ended"),
                length => answer.extend_from_slice(&piece[..length]),
            }
            if missing(&answer)? == Some(0) {
                return Ok(());
            }
        }
    }

    /// Whether the other side has neither closed it nor sent what nobody asked for.
    async fn is_open(&mut self) -> anyhow::Result<()> {
        let mut piece = [0; 1];
        match timeout(Duration::ZERO, self.0.read(&mut piece)).await {
            Err(_) => Ok(()),
            Ok(Ok(0)) => bail!("its end was read"),
            Ok(Ok(_)) => bail!("a byte too many was read"),
            Ok(Err(error)) => Err(error.into()),
        }
    }
}

/// How much of an answer's body is still missing; nothing is known before its head is whole.
fn missing(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head]).context("the head of the answer is not text")?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("it was answered with {:?}", text.lines().next().unwrap_or_default());
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("the answer has no length")?;
    Ok(Some((head + 4 + length).saturating_sub(answer.len())))
}

fn connector() -> anyhow::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any certificate: all of them were made here, for this measurement.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-length: 3\r\n\r\nabc";
        assert_eq!(missing(&whole[..20]).unwrap(), None);
        assert_eq!(missing(&whole[..whole.len() - 2]).unwrap(), Some(2));
        assert_eq!(missing(whole).unwrap(), Some(0));
        assert!(missing(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
        assert!(missing(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
