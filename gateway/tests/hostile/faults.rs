//! What endpoints do wrong (DF4 to DF15): each row of `cases/endpoint.txt` is a script of raw bytes, and what the
//! client must get. An endpoint plays its script for `/fault` and answers any other target soundly, so that what a fault
//! leaves behind on a connection meets a request that has nothing to do with it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use crate::bystander::Bystanders;
use crate::endpoint::Endpoint;
use crate::gateway::{Gateway, Line, Service, until};
use crate::notation::{self, Step};
use crate::trial::{self, Client, Cut};
use crate::wire;

const ROWS: &str = include_str!("cases/endpoint.txt");
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 100, 0, 1);
/// More than the buffers of three processes and two sockets.
const LARGE: usize = 32 * 1024 * 1024;
const TIME_OUTS: [&str; 6] =
    ["--response-timeout", "1s", "--stream-idle-timeout", "2s", "--upstream-idle-timeout", "3s"];

struct Row {
    id: String,
    request: String,
    /// Any of these.
    outcomes: Vec<String>,
    attempts: usize,
    /// A sound request comes over the connection first.
    reused: bool,
    /// The script is played for the first request only.
    once: bool,
    /// The connection may be used again.
    kept: bool,
    script: Vec<Step>,
    known: bool,
}

fn rows() -> Vec<Row> {
    ROWS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(Row::parse).collect()
}

impl Row {
    fn parse(line: &str) -> Self {
        let columns: Vec<_> = line.splitn(6, " | ").collect();
        let [id, flags, request, outcome, attempts, script] = columns[..] else {
            panic!("six columns: {line}")
        };
        let flags: Vec<_> = flags.split(' ').collect();
        let known_flags = ["-", "reused", "once", "kept", "?"];
        assert!(flags.iter().all(|flag| known_flags.contains(flag)), "{flags:?}");
        Self {
            id: id.to_owned(),
            request: request.to_owned(),
            outcomes: outcome.split(" or ").map(str::to_owned).collect(),
            attempts: attempts.parse().unwrap(),
            reused: flags.contains(&"reused"),
            once: flags.contains(&"once"),
            kept: flags.contains(&"kept"),
            script: notation::steps(script),
            known: flags.contains(&"?"),
        }
    }
}

/// An endpoint that plays a script, and what it has seen.
struct Stage {
    script: Vec<Step>,
    cut: Cut,
    once: bool,
    kept: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    played: usize,
    /// Connections on which a script was begun and that have not ended.
    open: usize,
    /// Targets that came over a connection on which the script had been played.
    after: Vec<String>,
}

impl Stage {
    fn start(row: &Row, cut: Cut) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stage =
            Self { script: row.script.clone(), cut, once: row.once, kept: row.kept, seen: Mutex::default() };
        let stage = Arc::new(stage);
        let played = Arc::clone(&stage);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stage = Arc::clone(&played);
                std::thread::spawn(move || stage.serve(stream));
            }
        });
        (address, stage)
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut bytes = Vec::new();
        let mut has_played = false;
        while let Some((head, end)) = head(&mut stream, &mut bytes) {
            if has_played {
                self.seen.lock().unwrap().after.push(head.target.clone());
            }
            let play = head.target == "/fault" && {
                let mut seen = self.seen.lock().unwrap();
                seen.played += 1;
                !self.once || seen.played == 1
            };
            if !play {
                if !body(&mut stream, &mut bytes) || answer(&mut stream, &head.target).is_err() {
                    break;
                }
                continue;
            }
            if !has_played {
                self.seen.lock().unwrap().open += 1;
                has_played = true;
            }
            if !self.kept {
                // What the script does not read is not looked at.
                bytes.drain(..end);
            }
            if self.play(&mut stream, &mut bytes).is_err() || !self.kept {
                break;
            }
        }
        if has_played {
            self.seen.lock().unwrap().open -= 1;
        }
    }

    fn play(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        if self.kept {
            body(stream, bytes);
        }
        for step in &self.script {
            match step {
                Step::Bytes(bytes) => self.cut.send(stream, bytes)?,
                Step::Wait(time) => std::thread::sleep(*time),
                Step::Fin => stream.shutdown(Shutdown::Write)?,
                Step::Reset => SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?,
                Step::Read => until_last_chunk(stream, bytes),
                Step::Silent => self.watch(stream)?,
                Step::Answer => panic!("a step of clients"),
            }
        }
        Ok(())
    }

    /// Reads on and says nothing. What comes behind a fault must not be another request.
    fn watch(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            if piece[..read].windows(7).any(|text| text == b"/after ") {
                self.seen.lock().unwrap().after.push("/after".to_owned());
            }
        }
    }
}

/// The head of the next request, which stays in `bytes`.
fn head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(wire::Request, usize)> {
    loop {
        if let Some(head) = wire::head(bytes) {
            return Some(head);
        }
        more(stream, bytes)?;
    }
}

/// Takes the next request off with its body.
fn body(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    loop {
        match wire::request(bytes) {
            wire::Read::Whole(_, used) => {
                bytes.drain(..used);
                return true;
            }
            wire::Read::Garbage(_) => return false,
            wire::Read::Partial => {}
        }
        if more(stream, bytes).is_none() {
            return false;
        }
    }
}

/// Reads a body whose end is told by its last bytes.
fn until_last_chunk(stream: &mut TcpStream, bytes: &mut Vec<u8>) {
    while !bytes.ends_with(b"0\r\n\r\n") && !bytes.ends_with(b"the end") {
        if more(stream, bytes).is_none() {
            return;
        }
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
    bytes.extend(&piece[..read]);
    Some(())
}

fn answer(stream: &mut TcpStream, target: &str) -> std::io::Result<()> {
    let body = format!("sound {target}");
    write!(stream, "HTTP/1.1 200 OK\r\nX-Endpoint: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
#[ignore = "a step of its own: cargo xtask test --only hostile"]
fn endpoints_that_break_the_rules_harm_only_their_own_requests() {
    let rows = rows();
    let cuts = [Cut::Whole, Cut::OneByOne, Cut::Random(1), Cut::Random(2)];
    let plays: Vec<_> = cuts.iter().flat_map(|cut| rows.iter().map(move |row| (row, *cut))).collect();
    let stages: Vec<_> = plays.iter().map(|(row, cut)| Stage::start(row, *cut)).collect();
    let sound = Endpoint::start();
    let mut services = vec![Service::new("ok", "ok.test", sound.address)];
    for (number, (address, _)) in stages.iter().enumerate() {
        services.push(Service::new(&format!("df{number}"), &host(number), *address));
    }
    let gateway = Gateway::start(&services, &TIME_OUTS);
    let bystanders = Bystanders::start(gateway.edge);
    let mut outcomes = Vec::new();
    for number in (0..plays.len()).step_by(rows.len()) {
        // One cut after the other: what waits for a time-out would not know a busy machine from it.
        outcomes.extend(all_at_once(&plays[number..number + rows.len()], number, &gateway, &stages));
    }
    let account = bystanders.end();
    // A connection to an endpoint is kept for a while at the most.
    until("no connection of a fault is open", || {
        stages.iter().all(|(_, stage)| stage.seen.lock().unwrap().open == 0)
    });
    let log = gateway.end();
    let mut wrong: Vec<_> =
        account.harmed.iter().map(|harm| format!("a bystander was harmed: {harm}")).collect();
    let of_row = |row: &Row| {
        let numbers = (0..plays.len()).filter(|number| std::ptr::eq(plays[*number].0, row));
        let faults = numbers.filter_map(|number| {
            let lines = log.get(&address(number).to_string()).map_or(&[][..], Vec::as_slice);
            let verdict =
                outcomes[number].clone().and_then(|outcome| row.judge(&outcome, &stages[number].1, lines));
            verdict.err().map(|fault| format!("{:?}: {fault}", plays[number].1))
        });
        faults.collect::<Vec<_>>()
    };
    for row in &rows {
        let faults = of_row(row);
        match (faults.is_empty(), row.known) {
            (true, false) | (false, true) => {}
            (true, true) => wrong.push(format!("{} holds now: take its mark away", row.id)),
            (false, false) => {
                wrong.push(format!("{}: {} of {} plays, {}", row.id, faults.len(), cuts.len(), faults[0]));
            }
        }
    }
    let known = rows.iter().filter(|row| row.known).count();
    println!(
        "{} rows ({known} known to fail) played {} times; bystanders asked {} times, the slowest answer took {:?}",
        rows.len(),
        plays.len(),
        account.asked,
        account.slowest
    );
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What each of these plays came to, of which the first has this number.
fn all_at_once(
    plays: &[(&Row, Cut)],
    first: usize,
    gateway: &Gateway,
    stages: &[(SocketAddr, Arc<Stage>)],
) -> Vec<Result<String, String>> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for ((row, _), number) in plays.iter().zip(first..) {
            threads.push(scope.spawn(move || row.check(number, gateway.edge, &stages[number].1)));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn host(number: usize) -> String {
    format!("df{number}.test")
}

/// The client's own, by which the access log tells whose request it was.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + u32::try_from(number).unwrap())
}

impl Row {
    /// Asks for the fault, and for something sound before and behind it. Gives what the fault came to.
    fn check(&self, number: usize, edge: SocketAddr, stage: &Stage) -> Result<String, String> {
        let connect = || Client::new(trial::connect(address(number), edge).unwrap());
        let mut client = connect();
        if self.reused {
            self.sound(&mut client, number, "/before")?;
        }
        let (outcome, mut last) = self.ask(&mut client, number);
        if stage.cut != Cut::Whole || self.script.iter().any(|step| matches!(step, Step::Wait(_))) {
            // What comes late must have come.
            std::thread::sleep(Duration::from_millis(150));
        }
        for _ in 0..2 {
            if last {
                client = connect();
            }
            last = self.sound(&mut client, number, "/after")?;
            std::thread::sleep(Duration::from_millis(150));
        }
        let after = stage.seen.lock().unwrap().after.clone();
        if self.kept || after.is_empty() {
            Ok(outcome)
        } else {
            Err(format!("{after:?} came over the connection of the fault, which gave {outcome}"))
        }
    }

    fn judge(&self, outcome: &str, stage: &Stage, log: &[Line]) -> Result<(), String> {
        let played = stage.seen.lock().unwrap().played;
        let fault: Vec<_> = log.iter().filter(|line| line.path == "/fault").collect();
        let [line] = fault[..] else { return Err(format!("not one line in the log: {fault:?}")) };
        if !self.outcomes.iter().any(|each| each == outcome) || played != self.attempts {
            let (outcomes, attempts) = (self.outcomes.join(" or "), self.attempts);
            return Err(format!(
                "required {outcomes} after {attempts}, but {outcome} after {played}: {line:?}"
            ));
        }
        let status = outcome.split(' ').next().and_then(|status| status.parse::<u16>().ok());
        let failed = status.is_none_or(|status| status == 502 || status == 504);
        let logged = status.is_none_or(|status| status == line.status) && failed == line.reason.is_some();
        if logged && line.attempts as usize == played {
            Ok(())
        } else {
            Err(format!("{outcome} after {played}, but the log says {line:?}"))
        }
    }

    /// The status and the body, or `broken` where the response is not whole; and whether the connection ends with it.
    fn ask(&self, client: &mut Client, number: usize) -> (String, bool) {
        let (method, body) = self.request.split_once(' ').unwrap_or((&self.request, ""));
        let framing = match body {
            "chunked" => "Transfer-Encoding: chunked\r\n".to_owned(),
            "large" => format!("Content-Length: {LARGE}\r\n"),
            _ if method == "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let head = format!("{method} /fault HTTP/1.1\r\nHost: {}\r\n{framing}\r\n", host(number));
        let mut writer = client.stream.try_clone().unwrap();
        let to_head = method == "HEAD";
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The answer may come, and the connection end, before all is sent.
                drop(writer.write_all(head.as_bytes()).and_then(|()| match body {
                    "large" => {
                        vec![b'a'; LARGE].chunks(64 * 1024).try_for_each(|piece| writer.write_all(piece))
                    }
                    "chunked" => writer.write_all(b"5\r\nhello\r\n0\r\n\r\n"),
                    body => writer.write_all(body.as_bytes()),
                }));
            });
            let answer = client.answer_to(to_head, &AtomicBool::new(false));
            let body_was_large = body == "large";
            if body_was_large {
                // The writer is not left waiting for a gateway that has stopped to read.
                drop(client.stream.shutdown(Shutdown::Both));
            }
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => return ("broken".to_owned(), true),
                Err(why) if why.starts_with("broken off") => return ("broken".to_owned(), true),
                Err(why) => return (why, true),
            };
            let own = answer.reason.is_some() || answer.body.is_empty();
            let body = if own { String::new() } else { format!(" {}", answer.body) };
            (format!("{}{body}", answer.status), answer.last || client.ended || body_was_large)
        })
    }

    /// Asks for something sound; gives whether the connection ends with it.
    fn sound(&self, client: &mut Client, number: usize, target: &str) -> Result<bool, String> {
        let sent = write!(client.stream, "GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", host(number));
        let answer =
            sent.map_err(|error| error.to_string()).and_then(|()| client.answer(&AtomicBool::new(false)));
        match answer {
            Ok(Some(answer)) if answer.status == 200 && answer.body == format!("sound {target}") => {
                Ok(answer.last)
            }
            other => Err(format!("{target} got {other:?}")),
        }
    }
}
