//! Clients and an upstream of bytes and threads, which are not counted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// One connection, over which messages go one after another.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Whether the last message was a response with status 200.
    was_good: bool,
}

/// Answers every request with 200 and `length` bytes, for as long as the process lives.
pub(crate) fn answer_all(length: usize) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Date: Wed, 25 Nov 2026 07:00:00 GMT\r\nServer: bench\r\n\r\n{}",
        "x".repeat(length)
    );
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while wire.take().is_ok() && wire.stream.write_all(answer.as_bytes()).is_ok() {}
            });
        }
    });
    Ok(address)
}

impl Wire {
    /// A connection to this address.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(address)?))
    }

    fn new(stream: TcpStream) -> Self {
        // Without it a message would wait for the one before to be acknowledged; nothing else depends on it.
        stream.set_nodelay(true).ok();
        Self { stream, buffer: vec![0; 256 * 1024], filled: 0, was_good: false }
    }

    /// Sends a message and reads the answer. Allocates nothing, so that allocations can be counted beside it.
    pub(crate) fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message)?;
        self.take()?;
        if self.was_good { Ok(()) } else { Err(io::Error::other("the answer is not 200")) }
    }

    /// Reads one message.
    fn take(&mut self) -> io::Result<()> {
        let head = loop {
            let seen = &self.buffer[..self.filled];
            match seen.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.fill()?,
            }
        };
        self.was_good = self.buffer.starts_with(b"HTTP/1.1 200 ");
        let end = head + content_length(&self.buffer[..head]);
        while self.filled < end {
            self.fill()?;
        }
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.buffer[self.filled..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            more => {
                self.filled += more;
                Ok(())
            }
        }
    }
}

/// The length that a head tells; none is 0.
fn content_length(head: &[u8]) -> usize {
    let mut fields = head.split(|&byte| byte == b'\n').filter_map(|line| line.split_at_checked(15));
    let value =
        fields.find_map(|(name, value)| name.eq_ignore_ascii_case(b"content-length:").then_some(value));
    value.and_then(|value| std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()).unwrap_or(0)
}

/// Asks over one HTTP/2 connection, one request after another.
pub(crate) async fn ask_http2(gateway: SocketAddr, path: &str, requests: u32) -> anyhow::Result<()> {
    let stream = tokio::net::TcpStream::connect(gateway).await?;
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    for _ in 0..requests {
        let request = Request::get(format!("http://shop.example.com{path}")).body(Empty::<Bytes>::new())?;
        let mut response = sender.send_request(request).await?;
        anyhow::ensure!(response.status() == 200, "the answer is {}", response.status());
        while let Some(frame) = response.body_mut().frame().await {
            frame?;
        }
    }
    drop(sender);
    driver.await??;
    Ok(())
}
