//! An endpoint that records the bytes it gets, by the client address that the gateway names, and reads them strictly:
//! what it cannot read stands in the record as garbage.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, Vec<Vec<u8>>>>>,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<HashMap<_, _>>>::default();
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&all);
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        Self { address, seen }
    }

    /// The requests that came from a client, byte for byte.
    pub(crate) fn from(&self, client: &str) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().get(client).cloned().unwrap_or_default()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<HashMap<String, Vec<Vec<u8>>>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut last = String::new();
    loop {
        let mut bytes = Vec::new();
        let read = request(&mut reader, &mut bytes);
        if bytes.is_empty() {
            return;
        }
        let client = field(&bytes, "x-forwarded-for").unwrap_or_else(|| last.clone());
        if read.is_none() {
            bytes.splice(..0, *b"GARBAGE ");
        }
        let target = String::from_utf8_lossy(&bytes).split(' ').nth(1).unwrap_or_default().to_owned();
        seen.lock().unwrap().entry(client.clone()).or_default().push(bytes);
        last = client;
        let body = format!("{last} {target}");
        let answer =
            format!("HTTP/1.1 200 OK\r\nX-Endpoint: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if read.is_none() || writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads one request into `bytes`; nothing, if they are not exactly one.
fn request(reader: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>) -> Option<()> {
    line(reader, bytes)?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let start = bytes.len();
        line(reader, bytes)?;
        let text = &bytes[start..bytes.len() - 2];
        if text.is_empty() {
            break;
        }
        let colon = text.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) || value.iter().any(|byte| *byte < 32 && *byte != 9)
        {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok())??;
            if length.replace(number.parse::<usize>().ok()?).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => None,
        (length, false) => take(reader, bytes, length.unwrap_or(0)),
        (None, true) => loop {
            let start = bytes.len();
            line(reader, bytes)?;
            let size = std::str::from_utf8(&bytes[start..bytes.len() - 2]).ok()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                loop {
                    let start = bytes.len();
                    line(reader, bytes)?;
                    if bytes.len() - start == 2 {
                        return Some(());
                    }
                }
            }
            take(reader, bytes, size + 2)?;
        },
    }
}

fn line(reader: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>) -> Option<()> {
    let start = bytes.len();
    reader.read_until(b'\n', bytes).ok()?;
    let line = &bytes[start..];
    let sound = line.ends_with(b"\r\n") && !line[..line.len() - 2].contains(&b'\r');
    sound.then_some(())
}

fn take(reader: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>, length: usize) -> Option<()> {
    let start = bytes.len();
    reader.take(length as u64).read_to_end(bytes).ok()?;
    (bytes.len() - start == length).then_some(())
}

fn field(bytes: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    text.split("\r\n").find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
