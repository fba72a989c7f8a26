//! An endpoint that records every byte it gets, by connection and by the client that the gateway names, and reads it
//! strictly: what it cannot read stands in the record as garbage.
//!
//! The beginning of the target says how it answers: `/slow` after 800 ms, `/early` with 413 as soon as the head is
//! there, `/flood` with a body that does not end, `/sink` reads a body without keeping it, anything else at once.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::wire::{self, Request};

#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    arrivals: Mutex<HashMap<String, Vec<Arrival>>>,
    streams: Mutex<Vec<Stream>>,
    /// Connections that are open.
    open: AtomicUsize,
    /// Those of them that are being flooded.
    flooded: AtomicUsize,
}

/// What came of a client.
#[derive(Debug, Clone)]
pub(crate) enum Arrival {
    Whole(Request),
    /// Its connection ended before it did.
    Begun(String),
    Garbage(&'static str, String),
}

/// What came over one connection: each request with its bytes, and what came behind the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    pub(crate) requests: Vec<(Request, Vec<u8>)>,
    pub(crate) rest: Vec<u8>,
}

impl Stream {
    /// Whether nothing came.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.rest.is_empty()
    }

    /// Whether one of these clients had a part in it.
    pub(crate) fn is_of(&self, clients: &HashSet<String>) -> bool {
        let begun = wire::head(&self.rest).map(|(head, _)| head);
        self.requests.iter().map(|(request, _)| request).chain(&begun).any(|it| clients.contains(&client(it)))
    }
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Self { address: listener.local_addr().unwrap(), record: Arc::default() };
        let record = Arc::clone(&endpoint.record);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = Arc::clone(&record);
                record.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    Connection::new(stream, &record).serve();
                    record.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        endpoint
    }

    /// What came of a client so far.
    pub(crate) fn from(&self, client: &str) -> Vec<Arrival> {
        self.record.arrivals.lock().unwrap().get(client).cloned().unwrap_or_default()
    }

    /// What came over each connection that has ended.
    pub(crate) fn streams(&self) -> Vec<Stream> {
        self.record.streams.lock().unwrap().clone()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// How many connections are being flooded.
    pub(crate) fn flooded(&self) -> usize {
        self.record.flooded.load(Ordering::SeqCst)
    }
}

struct Connection<'a> {
    socket: TcpStream,
    record: &'a Record,
    /// What has come and is no whole request yet.
    bytes: Vec<u8>,
    stream: Stream,
}

impl<'a> Connection<'a> {
    fn new(socket: TcpStream, record: &'a Record) -> Self {
        socket.set_nodelay(true).unwrap();
        Self { socket, record, bytes: Vec::new(), stream: Stream::default() }
    }

    fn serve(mut self) {
        while let Some((request, answered)) = self.next() {
            self.arrived(client(&request), Arrival::Whole(request.clone()));
            if !answered && self.answer(&request).is_err() {
                break;
            }
        }
        self.stream.rest = std::mem::take(&mut self.bytes);
        self.record.streams.lock().unwrap().push(self.stream);
    }

    /// The next request that comes to its end, and whether it is answered already.
    fn next(&mut self) -> Option<(Request, bool)> {
        let mut answered = false;
        loop {
            match wire::request(&self.bytes) {
                wire::Read::Whole(request, used) => {
                    let raw = self.bytes.drain(..used).collect();
                    self.stream.requests.push((request.clone(), raw));
                    return Some((request, answered));
                }
                wire::Read::Garbage(why) => {
                    self.broke_off(Some(why));
                    return None;
                }
                wire::Read::Partial => {}
            }
            if !answered && let Some((head, end)) = wire::head(&self.bytes) {
                match head.target.as_str() {
                    target if target.starts_with("/early") => {
                        answered = true;
                        self.respond("413 Content Too Large", &head).ok()?;
                    }
                    target if target.starts_with("/sink") => return self.sink(&head, end),
                    _ => {}
                }
            }
            if !self.more() {
                self.broke_off(None);
                return None;
            }
        }
    }

    fn more(&mut self) -> bool {
        let mut piece = vec![0; 64 * 1024];
        let read = self.socket.read(&mut piece).unwrap_or(0);
        self.bytes.extend(&piece[..read]);
        read > 0
    }

    /// Reads a body of any size: what matters of it is its last bytes, or its length.
    fn sink(&mut self, head: &Request, end: usize) -> Option<(Request, bool)> {
        let length = head.fields.first("content-length").and_then(|length| length.parse::<usize>().ok());
        let mut read = self.bytes.len() - end;
        loop {
            if length.map_or(self.bytes.ends_with(b"\r\n0\r\n\r\n"), |length| read >= length) {
                self.bytes.clear();
                return Some((head.clone(), false));
            }
            self.bytes.drain(..self.bytes.len().saturating_sub(16));
            let kept = self.bytes.len();
            if !self.more() {
                self.bytes.clear();
                self.arrived(client(head), Arrival::Begun(head.target.clone()));
                return None;
            }
            read += self.bytes.len() - kept;
        }
    }

    fn broke_off(&self, why: Option<&'static str>) {
        if self.bytes.is_empty() {
            return;
        }
        let text = wire::latin1(&self.bytes[..self.bytes.len().min(400)]);
        let from = wire::head(&self.bytes).map_or_else(|| "nobody".to_owned(), |(head, _)| client(&head));
        self.arrived(
            from,
            match why {
                Some(why) => Arrival::Garbage(why, text),
                None => Arrival::Begun(text),
            },
        );
    }

    fn arrived(&self, client: String, arrival: Arrival) {
        self.record.arrivals.lock().unwrap().entry(client).or_default().push(arrival);
    }

    fn answer(&mut self, request: &Request) -> std::io::Result<()> {
        let target = &request.target;
        if target.starts_with("/flood") {
            return self.flood();
        }
        if target.starts_with("/slow") {
            std::thread::sleep(Duration::from_millis(800));
        }
        self.respond("200 OK", request)
    }

    fn respond(&mut self, status: &str, request: &Request) -> std::io::Result<()> {
        let body = format!("{} {}", client(request), request.target);
        let head = format!("HTTP/1.1 {status}\r\nX-Endpoint: 1\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if request.method == "HEAD" { "" } else { &body };
        self.socket.write_all(format!("{head}{body}").as_bytes())
    }

    fn flood(&mut self) -> std::io::Result<()> {
        self.record.flooded.fetch_add(1, Ordering::SeqCst);
        let mut sent =
            self.socket.write_all(b"HTTP/1.1 200 OK\r\nX-Endpoint: 1\r\nContent-Length: 9000000000\r\n\r\n");
        while sent.is_ok() {
            sent = self.socket.write_all(&[b'f'; 4096]);
        }
        self.record.flooded.fetch_sub(1, Ordering::SeqCst);
        sent
    }
}

/// The address that the gateway vouches for: the last one, for what stands before it is what the client said.
fn client(request: &Request) -> String {
    let last = request.fields.all("x-forwarded-for").last().and_then(|list| list.rsplit(',').next());
    last.map_or_else(|| "nobody".to_owned(), |address| address.trim().to_owned())
}
