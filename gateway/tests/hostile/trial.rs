//! One case, sent in one way, and what came of it for the client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::case::{Case, Required};
use crate::gateway::Gateway;
use crate::notation::Step;
use crate::wire;

/// How long an answer may take, and a refusal until it closes.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes that are still sent one by one; longer ones are sent in as many pieces.
const ONE_BY_ONE: usize = 700;
const PIECES: usize = 64;

/// How the bytes are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    OneByOne,
    /// In a few pieces, by this seed.
    Random(u64),
}

#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) case: &'a Case,
    pub(crate) cut: Cut,
    /// The client's own, by which the endpoint and the access log tell whose request they have.
    pub(crate) address: Ipv4Addr,
}

/// What the client saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Final answers to the case.
    pub(crate) answers: Vec<Answer>,
    /// The answer to the request that was sent behind the case, if there was one.
    pub(crate) canary: Option<Answer>,
    /// Whether the gateway closed without being asked another request.
    pub(crate) closed: bool,
    /// What is wrong with what came, whatever was required.
    pub(crate) fault: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) from_endpoint: bool,
    pub(crate) reason: Option<String>,
    /// It says that it is the last one on its connection.
    pub(crate) last: bool,
    pub(crate) body: String,
}

impl Cut {
    /// Sends bytes in its pieces.
    pub(crate) fn send(self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        let (mut rest, mut random) = (bytes, fastrand::Rng::with_seed(self.seed()));
        while !rest.is_empty() {
            let size = match self {
                Cut::Whole => rest.len(),
                Cut::OneByOne if bytes.len() <= ONE_BY_ONE => 1,
                Cut::OneByOne => bytes.len() / PIECES + 1,
                Cut::Random(_) => random.usize(1..=bytes.len() / 3 + 1),
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            stream.write_all(piece)?;
            rest = after;
            match self {
                Cut::Whole => {}
                Cut::OneByOne => std::thread::sleep(Duration::from_micros(100)),
                Cut::Random(_) => std::thread::sleep(Duration::from_micros(random.u64(0..4000))),
            }
        }
        Ok(())
    }

    fn seed(self) -> u64 {
        match self {
            Cut::Random(seed) => seed,
            Cut::Whole | Cut::OneByOne => 0,
        }
    }
}

impl Trial<'_> {
    /// The target of the request behind the case.
    pub(crate) fn canary(&self) -> String {
        format!("/canary-{}", self.address)
    }

    pub(crate) fn run(&self, gateway: &Gateway) -> Seen {
        let listener = if self.case.cluster { gateway.cluster } else { gateway.edge };
        let mut stream = connect(self.address, listener).unwrap();
        let mut client = Client::new(stream.try_clone().unwrap());
        let answered = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The gateway may refuse before all is sent.
            scope.spawn(|| drop(self.send(&mut stream, &answered)));
            self.watch(&mut client, &answered)
        })
    }

    fn send(&self, stream: &mut TcpStream, answered: &AtomicBool) -> std::io::Result<()> {
        for step in &self.case.steps {
            match step {
                Step::Bytes(bytes) => self.cut.send(stream, bytes)?,
                Step::Wait(time) => std::thread::sleep(*time),
                Step::Answer => wait_for(answered),
                Step::Fin => stream.shutdown(std::net::Shutdown::Write)?,
                Step::Reset | Step::Read | Step::Silent => panic!("a step of endpoints"),
            }
        }
        Ok(())
    }

    fn watch(&self, client: &mut Client, answered: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let most = self.case.required.iter().map(Vec::len).max().unwrap_or(1);
        while seen.answers.len() < most && seen.fault.is_none() {
            let meant = self.case.meant.get(seen.answers.len());
            let head = meant.is_some_and(|meant| meant.method == "HEAD");
            match client.answer_to(head, answered) {
                Ok(Some(answer)) => seen.answers.push(answer),
                Ok(None) => break,
                Err(fault) => seen.fault = Some(fault),
            }
        }
        answered.store(true, Ordering::SeqCst);
        if seen.fault.is_some() {
            return seen;
        }
        if self.must_close(&seen.answers) {
            client.until_end();
            seen.closed = client.ended;
            if !client.bytes.is_empty() {
                seen.fault = Some(format!("more behind the refusal: {:?}", wire::latin1(&client.bytes)));
            }
        } else {
            self.ask_canary(client, &mut seen);
        }
        seen
    }

    /// Whether what came so far can be right only if the connection is closed now.
    fn must_close(&self, answers: &[Answer]) -> bool {
        let may = |choice: &&Vec<Required>| {
            choice.len() == answers.len()
                && choice.iter().zip(answers).all(|(required, answer)| required.may_be(answer))
        };
        let fitting: Vec<_> =
            self.case.required.iter().filter(may).filter_map(|choice| choice.last()).collect();
        !fitting.is_empty()
            && fitting
                .iter()
                .all(|last| matches!(last, Required::Refused(_) | Required::BrokenOff(_) | Required::Closed))
    }

    /// A further request on the connection gets its own answer, or the connection ends.
    fn ask_canary(&self, client: &mut Client, seen: &mut Seen) {
        let canary = self.canary();
        let request = format!("GET {canary} HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n");
        // A client that has ended its direction asks nothing more.
        let ended = client.ended || self.case.steps.contains(&Step::Fin);
        if !ended {
            // It may be closed at this moment, and then the end is what comes next.
            drop(client.stream.write_all(request.as_bytes()));
        }
        loop {
            match client.answer(&AtomicBool::new(false)) {
                Ok(Some(answer)) => {
                    if let Some(behind) = seen.canary.replace(answer) {
                        seen.answers.push(behind);
                    }
                }
                Ok(None) => break,
                Err(fault) => {
                    seen.fault = Some(format!("behind the case: {fault}"));
                    break;
                }
            }
        }
        seen.closed = seen.canary.is_none();
        let own = format!("{} {canary}", self.address);
        if seen.canary.as_ref().is_some_and(|answer| answer.from_endpoint && answer.body != own) {
            seen.answers.extend(seen.canary.take());
        }
    }
}

impl Required {
    /// Whether an answer may be this, whatever becomes of the connection.
    pub(crate) fn may_be(self, answer: &Answer) -> bool {
        match self {
            Required::Forwarded => answer.from_endpoint && answer.status == 200,
            Required::Endpoint(status) => answer.from_endpoint && answer.status == status,
            Required::Own(status) | Required::Refused(status) | Required::BrokenOff(status) => {
                !answer.from_endpoint && answer.status == status
            }
            Required::Safe => true,
            Required::Closed | Required::Left => false,
        }
    }
}

fn wait_for(answered: &AtomicBool) {
    let start = Instant::now();
    while !answered.load(Ordering::SeqCst) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads answers off a connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
    silent: bool,
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, bytes: Vec::new(), ended: false, silent: false }
    }

    /// The next final answer; none if the connection ends before it begins. `came` is told of the first byte.
    pub(crate) fn answer(&mut self, came: &AtomicBool) -> Result<Option<Answer>, String> {
        self.answer_to(false, came)
    }

    /// The same, where the request may have been HEAD.
    pub(crate) fn answer_to(&mut self, head: bool, came: &AtomicBool) -> Result<Option<Answer>, String> {
        loop {
            came.fetch_or(!self.bytes.is_empty(), Ordering::SeqCst);
            match wire::response(&self.bytes, head, self.ended) {
                wire::Read::Whole(response, used) => {
                    self.bytes.drain(..used);
                    return Ok(Some(Answer {
                        status: response.status,
                        from_endpoint: response.fields.first("x-endpoint").is_some(),
                        last: response.fields.first("connection").is_some_and(|value| value == "close"),
                        reason: response.fields.first("x-portolan-reason").map(str::to_owned),
                        body: wire::latin1(&response.body),
                    }));
                }
                wire::Read::Garbage(why) => return Err(format!("{why}: {:?}", self.shown())),
                wire::Read::Partial if self.ended && self.bytes.is_empty() => return Ok(None),
                wire::Read::Partial if self.ended => return Err(format!("broken off: {:?}", self.shown())),
                wire::Read::Partial if self.silent => return Err(format!("no answer: {:?}", self.shown())),
                wire::Read::Partial => self.more(),
            }
        }
    }

    fn shown(&self) -> String {
        wire::latin1(&self.bytes[..self.bytes.len().min(300)])
    }

    fn more(&mut self) {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(read) => self.bytes.extend(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.silent = true,
            Err(_) => self.ended = true,
        }
    }

    /// Reads until the gateway closes, or for as long as it may take.
    pub(crate) fn until_end(&mut self) {
        let start = Instant::now();
        while !self.ended && !self.silent && start.elapsed() < PATIENCE {
            self.more();
        }
    }
}
