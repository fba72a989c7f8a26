//! What endpoints do wrong (DF4 to DF15): each row is a script of raw bytes, and what the client must get.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::gateway::Gateway;
use crate::notation;

/// The columns: id, method, status that the client gets (`broken`: its connection ends before the response does),
/// requests that the endpoint sees, what the endpoint sends. `…` in that means that it keeps the connection open and
/// is silent; otherwise it closes.
const ROWS: &str = include_str!("cases/endpoint.txt");

struct Row {
    id: String,
    method: String,
    outcome: String,
    requests: usize,
    bytes: Vec<u8>,
    silent: bool,
    known: bool,
}

fn rows() -> Vec<Row> {
    let lines = ROWS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let columns: Vec<_> = line.splitn(5, " | ").collect();
            let [id, method, outcome, requests, bytes] = columns[..] else { panic!("five columns: {line}") };
            Row {
                id: id.to_owned(),
                method: method.to_owned(),
                outcome: outcome.trim_end_matches('?').to_owned(),
                requests: requests.parse().unwrap(),
                bytes: notation::bytes(bytes.trim_end_matches('…')),
                silent: bytes.ends_with('…'),
                known: outcome.ends_with('?'),
            }
        })
        .collect()
}

/// An endpoint that reads a head, sends the bytes and closes or is silent; and the count of requests that it saw.
fn scripted(bytes: Vec<u8>, silent: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (bytes, counted) = (bytes.clone(), Arc::clone(&counted));
            std::thread::spawn(move || {
                while head(&mut stream) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(&bytes).is_err() || !silent {
                        drop(stream.shutdown(Shutdown::Write));
                        return;
                    }
                }
            });
        }
    });
    (address, count)
}

fn head(stream: &mut TcpStream) -> bool {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !stream.read(&mut byte).is_ok_and(|read| read == 1) {
            return false;
        }
        head.push(byte[0]);
    }
    true
}

#[test]
#[ignore = "a step of its own: cargo xtask test --only hostile"]
fn endpoints_that_break_the_rules_never_lead_to_a_response_that_looks_whole() {
    let rows = rows();
    let endpoints: Vec<_> = rows.iter().map(|row| scripted(row.bytes.clone(), row.silent)).collect();
    let names: Vec<_> = (0..rows.len()).map(|number| format!("df{number}")).collect();
    let hosts: Vec<_> = names.iter().map(|name| format!("{name}.test")).collect();
    let addresses: Vec<_> = endpoints.iter().map(|(address, _)| [*address]).collect();
    let services: Vec<(&str, &str, &[SocketAddr])> = (0..rows.len())
        .map(|number| (names[number].as_str(), hosts[number].as_str(), &addresses[number][..]))
        .collect();
    let gateway = Gateway::start(&services);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = rows
            .iter()
            .zip(&hosts)
            .zip(&endpoints)
            .map(|((row, host), (_, count))| scope.spawn(|| row.check(gateway.edge, host, count)))
            .collect();
        asked.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect()
    });
    assert!(faults.is_empty(), "{} rows are wrong:\n{}", faults.len(), faults.join("\n"));
}

impl Row {
    fn check(&self, edge: SocketAddr, host: &str, count: &AtomicUsize) -> Result<(), String> {
        let answer = ask(edge, host, &self.method);
        let outcome = outcome(&answer);
        let seen = count.load(Ordering::SeqCst);
        let holds = outcome == self.outcome && seen == self.requests;
        match (holds, self.known) {
            (true, false) | (false, true) => Ok(()),
            (true, true) => Err(format!("{} holds now: take its mark away", self.id)),
            (false, false) => Err(format!(
                "{}: required {} after {} requests, but {outcome} after {seen}: {answer:?}",
                self.id, self.outcome, self.requests
            )),
        }
    }
}

fn ask(edge: SocketAddr, host: &str, method: &str) -> String {
    let mut stream = TcpStream::connect(edge).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    write!(stream, "{method} / HTTP/1.1\r\nHost: {host}\r\n{length}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // A reset is an end like another here: what counts is what came before it.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status, or `broken` where the response is not whole.
fn outcome(answer: &str) -> String {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return "broken".to_owned() };
    let head = head.to_ascii_lowercase();
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
    let whole = match length {
        Some(length) => length.trim().parse() == Ok(body.len()),
        None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
        None => true,
    };
    if whole { head.split(' ').nth(1).unwrap_or_default().to_owned() } else { "broken".to_owned() }
}
