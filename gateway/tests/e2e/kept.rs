//! Clients that keep their connection and send a request on it now and then, and hear what they are told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::node_port;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(200);

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Kept {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

/// What became of their connections.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Ended as they should: an answer said `connection: close`.
    pub(crate) told: usize,
    /// Ended without a word before, or could not be opened.
    pub(crate) cut: Vec<String>,
}

impl Kept {
    /// So many clients of a path through Portolan's NodePort.
    pub(crate) fn start(count: usize, path: &str) -> Kept {
        let stop = Arc::new(AtomicBool::new(false));
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let client = |_| {
            let (stop, request) = (stop.clone(), request.clone());
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    match connection(&request, &stop) {
                        Ok(told) => seen.told += usize::from(told),
                        Err(error) => seen.cut.push(format!("{error:#}")),
                    }
                }
                seen
            })
        };
        let clients = (0..count).map(client).collect();
        Kept { stop, clients }
    }

    /// Ends them all.
    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in self.clients {
            let seen = client.join().unwrap();
            all.told += seen.told;
            all.cut.extend(seen.cut);
        }
        all
    }
}

/// One connection, for as long as it is kept: true if an answer said that it ends.
fn connection(request: &str, stop: &AtomicBool) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(node_port())?;
    while !stop.load(Ordering::Relaxed) {
        anyhow::ensure!(!has_ended(&stream)?, "closed while it was idle");
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request.as_bytes())?;
        let head = answer(&mut stream)?;
        anyhow::ensure!(head.starts_with("http/1.1 200"), "{head}");
        if head.contains("\r\nconnection: close") {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}

/// Whether the other side has closed a connection on which nothing is awaited.
fn has_ended(stream: &TcpStream) -> anyhow::Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    Ok(!matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock))
}

/// Reads an answer with its body; returns its head in small letters.
fn answer(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "closed instead of an answer");
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length =
            head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        if length.is_some_and(|length: usize| body.len() >= length) {
            return Ok(head);
        }
    }
}
