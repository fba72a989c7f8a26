//! What is answered.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderValue, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::request::Head;
use super::{End, Mode, Switches};

/// The longest body that is asked for by a request.
const LONGEST_BODY: u64 = 64 << 20;

/// Makes the answers of one upstream.
#[derive(Debug)]
pub(super) struct Answerer {
    name: String,
    version: String,
    /// The fields of every answer, as they are written.
    fields: String,
    small: String,
    pub(super) switches: Arc<Switches>,
    end: watch::Sender<End>,
    date: RefCell<Date>,
}

/// The field `date`, made once a second.
#[derive(Debug)]
struct Date {
    second: u64,
    text: String,
}

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// Whether it is ready, or only whether it is well.
    Health { ready: bool },
    /// That it ends on the spot.
    Crash,
    /// Switches to be turned.
    Turn(String),
    /// An answer.
    Content(Content),
}

/// The content of an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// What the switches say: the small JSON, or so many bytes.
    Usual,
    /// So many bytes, whatever the switches say.
    Dots(u64),
    /// What arrived, but for the length of its body.
    Echo(Value),
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Payload {
    Text(String),
    Dots(u64),
}

/// One answer.
#[derive(Debug)]
pub(super) enum Answer {
    Whole(StatusCode, Payload),
    /// The half of it, then the end of the connection.
    Cut(Payload),
    /// The connection is reset.
    Reset,
    /// None, ever.
    Nothing,
}

impl Asked {
    /// What this head, which came in at the address `local`, asks for.
    pub(super) fn by(head: &Head<'_>, local: SocketAddr) -> Self {
        let (path, query) = head.target.split_once('?').unwrap_or((head.target, ""));
        let path = if path.starts_with('/') { path } else { path_of_url(path) };
        match (head.method, path) {
            (_, "/healthz" | "/readyz") => Self::Health { ready: true },
            (_, "/livez") => Self::Health { ready: false },
            ("PUT", "/crash") => Self::Crash,
            ("PUT", "/switches") => Self::Turn(query.to_owned()),
            _ => Self::Content(Content::of(head, path, query, local)),
        }
    }
}

/// The path of a request to a proxy, which names a whole URL.
fn path_of_url(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    authority.find('/').map_or("/", |at| &authority[at..])
}

impl Content {
    fn of(head: &Head<'_>, path: &str, query: &str, local: SocketAddr) -> Self {
        if !query.is_empty() {
            if query.split('&').any(|part| part == "echo") {
                return Self::Echo(echo(head, path, local));
            }
            let asked = query.split('&').find_map(|part| part.strip_prefix("body=")?.parse::<u64>().ok());
            if let Some(bytes) = asked {
                return Self::Dots(bytes.min(LONGEST_BODY));
            }
        }
        let sized = path.rsplit_once("/b/").and_then(|(_, size)| bytes(size));
        sized.map_or(Self::Usual, |bytes| Self::Dots(bytes.min(LONGEST_BODY)))
    }
}

/// A size such as `100`, `64k` or `1m`.
fn bytes(text: &str) -> Option<u64> {
    let (number, scale) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    number.parse::<u32>().ok().map(|number| u64::from(number) << scale)
}

fn echo(head: &Head<'_>, path: &str, local: SocketAddr) -> Value {
    let field = |(name, value): &(&str, &[u8])| {
        [name.to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned()]
    };
    let fields: Vec<_> = head.fields.iter().map(field).collect();
    let target = head.target.parse::<Uri>().map_or(head.target.to_owned(), |uri| uri.to_string());
    json!({ "local": local, "method": head.method, "target": target, "path": path, "headers": fields })
}

impl Answerer {
    pub(super) fn new(name: &str, version: &str, switches: Arc<Switches>, end: watch::Sender<End>) -> Self {
        // What no field can hold is still in the body.
        let field = |text: &str| match HeaderValue::try_from(text) {
            Ok(_) => text.to_owned(),
            Err(_) => "(unprintable)".to_owned(),
        };
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            fields: format!(
                "x-upstream: {}\r\nx-version: {}\r\ncontent-type: application/json\r\n",
                field(name),
                field(version)
            ),
            small: format!("{}\n", json!({ "upstream": name, "version": version })),
            switches,
            end,
            date: RefCell::new(Date { second: 0, text: String::new() }),
        }
    }

    /// The answer to a request whose body had so many bytes. It has waited already.
    pub(super) fn answer(&self, content: Content, received: u64) -> Answer {
        let payload = self.payload(content, received);
        match self.switches.failure() {
            None => Answer::Whole(StatusCode::OK, payload),
            Some(Mode::Status(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Answer::Whole(status, payload)
            }
            Some(Mode::Reset) => Answer::Reset,
            Some(Mode::CutBody) => Answer::Cut(payload),
            Some(Mode::Hang) => Answer::Nothing,
        }
    }

    pub(super) fn health(&self, ready: bool) -> Answer {
        let is_good = if ready { self.switches.is_ready() } else { self.switches.is_healthy() };
        if is_good {
            return said(StatusCode::OK, "ok\n");
        }
        let why = if self.switches.is_healthy() { "not ready\n" } else { "sick\n" };
        said(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    /// No answer: the server ends, and this connection with it.
    pub(super) fn crash(&self) -> Answer {
        self.end.send_replace(End::Crash);
        Answer::Nothing
    }

    pub(super) fn turn(&self, query: &str) -> Answer {
        match self.switches.turn(query) {
            Ok(()) => said(StatusCode::OK, "turned\n"),
            Err(error) => said(StatusCode::BAD_REQUEST, &format!("{error:#}\n")),
        }
    }

    /// Writes the head of an answer with a body of `length` bytes.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, status: StatusCode, length: u64, keep: bool) {
        let mut text = |words: &str| out.extend_from_slice(words.as_bytes());
        text("HTTP/1.1 ");
        text(status.as_str());
        text(" ");
        text(status.canonical_reason().unwrap_or("Unknown"));
        text("\r\n");
        text(&self.fields);
        if may_have_body(status) {
            text("content-length: ");
            text(itoa(length, &mut [0; 20]));
            text("\r\n");
        }
        text(self.date.borrow_mut().now());
        text(if keep { "\r\n" } else { "connection: close\r\n\r\n" });
    }

    fn payload(&self, content: Content, received: u64) -> Payload {
        match content {
            Content::Dots(bytes) => Payload::Dots(bytes),
            Content::Usual => match self.switches.body_bytes().min(LONGEST_BODY) {
                0 => Payload::Text(self.small.clone()),
                bytes => Payload::Dots(bytes),
            },
            Content::Echo(mut echo) => {
                echo["upstream"] = json!(self.name);
                echo["version"] = json!(self.version);
                echo["body_bytes"] = json!(received);
                Payload::Text(format!("{echo}\n"))
            }
        }
    }
}

/// Whether answers of this status have a body at all.
pub(super) fn may_have_body(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

fn said(status: StatusCode, words: &str) -> Answer {
    Answer::Whole(status, Payload::Text(words.to_owned()))
}

/// The digits of a number, without allocating.
fn itoa(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).expect("digits are ASCII")
}

impl Payload {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Dots(bytes) => *bytes,
        }
    }
}

impl Date {
    fn now(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            write!(self.text, "date: {}\r\n", httpdate::HttpDate::from(now)).expect("a text takes all");
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_in_paths() {
        for (text, expected) in [
            ("100", Some(100)),
            ("1k", Some(1 << 10)),
            ("1m", Some(1 << 20)),
            ("k", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 102, 1 << 20, u64::MAX] {
            assert_eq!(itoa(number, &mut [0; 20]), number.to_string());
        }
    }
}
