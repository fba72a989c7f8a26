//! One case, sent in one way, and what came of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::case::{Case, Required};
use crate::endpoint::Endpoint;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(6);
/// Cases up to this long are also sent a byte at a time.
const SHORT: usize = 600;
const PAUSE: Duration = Duration::from_micros(200);

pub(crate) struct Trial<'a> {
    pub(crate) case: &'a Case,
    split: bool,
}

/// An answer: its status, and whether an endpoint made it.
type Answer = (u16, bool);

impl<'a> Trial<'a> {
    pub(crate) fn of(case: &'a Case) -> [Self; 2] {
        [false, true].map(|split| Self { case, split })
    }

    pub(crate) fn how(&self) -> &'static str {
        if self.split { "in pieces" } else { "whole" }
    }

    /// Runs it from an address of its own, by which the endpoint tells whose request it has.
    pub(crate) fn run(&self, number: u32, edge: SocketAddr, endpoint: &Endpoint) -> Result<(), String> {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number);
        let mut stream = connect(address, edge).map_err(|error| error.to_string())?;
        let mut reader = Reader { stream: stream.try_clone().unwrap(), bytes: Vec::new(), ended: false };
        let most = self.case.required.iter().map(Vec::len).max().unwrap_or(1);
        let answers = std::thread::scope(|scope| {
            // The gateway may refuse before all is sent.
            scope.spawn(|| drop(self.send(&mut stream)));
            reader.answers(most)
        })?;
        let closed = reader.closes_at_once();
        let seen = endpoint.from(&address.to_string());
        self.judge(&answers, closed, &seen)?;
        if !closed {
            canary(&mut stream, &mut reader, number)?;
        }
        let after = endpoint.from(&address.to_string()).len() - seen.len();
        if after > 1 { Err(format!("{after} requests reached the endpoint later")) } else { Ok(()) }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let bytes = &self.case.bytes;
        if !self.split {
            return stream.write_all(bytes);
        }
        let size = if bytes.len() <= SHORT { 1 } else { bytes.len() / 7 + 1 };
        for piece in bytes.chunks(size) {
            stream.write_all(piece)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn judge(&self, answers: &[Answer], closed: bool, seen: &[Vec<u8>]) -> Result<(), String> {
        let case = self.case;
        let told = || format!("answers {answers:?}, closed {closed}, {} at the endpoint", seen.len());
        let fits = case.required.iter().any(|choice| fits(choice, answers, closed));
        let forwarded = answers.iter().filter(|(_, from_endpoint)| *from_endpoint).count();
        let heads = seen.iter().map(|bytes| String::from_utf8_lossy(bytes).to_ascii_lowercase());
        let heads: Vec<_> = heads.collect();
        // A request of a body that broke off may have begun at the endpoint, but never came to its end there.
        let whole = heads.iter().filter(|head| !head.starts_with("garbage ")).count();
        if !fits || whole != forwarded {
            return Err(format!("required {:?}, but {}", case.required, told()));
        }
        let all = heads.join("\n");
        if let Some(missing) = case.reaches.iter().find(|text| forwarded > 0 && !all.contains(*text)) {
            return Err(format!("{missing:?} did not reach the endpoint: {all:?}"));
        }
        if let Some(leaked) = case.stays.iter().find(|text| all.contains(*text)) {
            return Err(format!("{leaked:?} reached the endpoint: {all:?}"));
        }
        Ok(())
    }
}

fn fits(choice: &[Required], answers: &[Answer], closed: bool) -> bool {
    if choice == [Required::Closed] {
        return answers.is_empty() && closed;
    }
    choice.len() == answers.len()
        && choice.iter().zip(answers).all(|(required, answer)| match required {
            Required::Forwarded => *answer == (200, true),
            Required::Own(status) => *answer == (*status, false),
            Required::Refused(status) => *answer == (*status, false) && closed,
            Required::Closed => false,
        })
}

/// A further request on the connection gets its own answer, or none.
fn canary(stream: &mut TcpStream, reader: &mut Reader, number: u32) -> Result<(), String> {
    let sent = write!(stream, "GET /canary-{number} HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n");
    if sent.is_err() {
        return Ok(());
    }
    reader.until_end();
    let rest = String::from_utf8_lossy(&reader.bytes).into_owned();
    if rest.is_empty() || rest.ends_with(&format!(" /canary-{number}")) {
        Ok(())
    } else {
        Err(format!("the next request on the connection got {rest:?}"))
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

struct Reader {
    stream: TcpStream,
    bytes: Vec<u8>,
    ended: bool,
}

impl Reader {
    /// Up to so many final answers, fewer if the connection ends before.
    fn answers(&mut self, most: usize) -> Result<Vec<Answer>, String> {
        let mut answers = Vec::new();
        let start = Instant::now();
        while answers.len() < most {
            match self.answer() {
                Some((status, _)) if (100..200).contains(&status) => {}
                Some(answer) => answers.push(answer),
                None if self.ended => break,
                None if start.elapsed() > PATIENCE || !self.more() => {
                    if self.ended {
                        continue;
                    }
                    return Err(format!("no answer, after {answers:?}"));
                }
                None => {}
            }
        }
        Ok(answers)
    }

    /// Takes one answer off what has come.
    fn answer(&mut self) -> Option<Answer> {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name));
        let length = match field("content-length:") {
            Some(length) => length.trim().parse::<usize>().ok()?,
            None => 0,
        };
        if self.bytes.len() < end + length {
            return None;
        }
        self.bytes.drain(..end + length);
        Some((status, field("x-endpoint:").is_some()))
    }

    /// Reads what comes next; false at the end and when nothing comes.
    fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(read) => self.bytes.extend(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.ended = true,
        }
        !self.ended
    }

    fn until_end(&mut self) {
        while self.more() {}
    }

    /// Whether the gateway closes after the last answer. A refusal closes at once; what stays open for this long is kept.
    fn closes_at_once(&mut self) -> bool {
        if !self.ended {
            self.stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
            self.until_end();
            self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        self.ended
    }
}
