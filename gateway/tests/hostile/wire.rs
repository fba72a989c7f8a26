//! HTTP/1.1 read strictly from bytes that have come: nothing is repaired, and what two readers might understand
//! differently is no message at all.

/// A request, its body out of the chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// A final response, its body out of the chunks.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
}

/// What bytes begin with.
#[derive(Debug)]
pub(crate) enum Read<T> {
    /// A message of this many bytes.
    Whole(T, usize),
    /// Too few bytes of one.
    Partial,
    /// No message, and why.
    Garbage(&'static str),
}

/// Fields in their order: names in lower case, bytes as Latin-1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

/// Why there is no message yet.
enum Stop {
    Partial,
    Garbage(&'static str),
}

type Result<T> = std::result::Result<T, Stop>;

impl Fields {
    /// The first value.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    /// All values, in their order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(each, _)| each == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a request.
pub(crate) fn request(bytes: &[u8]) -> Read<Request> {
    let mut reader = Reader { bytes, at: 0 };
    done(reader.request().map(|request| (request, reader.at)))
}

/// Reads a final response; informational ones before it are skipped. `ended` says that no more bytes will come.
pub(crate) fn response(bytes: &[u8], to_head: bool, ended: bool) -> Read<Response> {
    let mut reader = Reader { bytes, at: 0 };
    done(reader.response(to_head, ended).map(|response| (response, reader.at)))
}

/// The head of a request, if all of it has come, and its length.
pub(crate) fn head(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    reader.head().ok().map(|head| (head, reader.at))
}

fn done<T>(result: Result<(T, usize)>) -> Read<T> {
    match result {
        Ok((message, used)) => Read::Whole(message, used),
        Err(Stop::Partial) => Read::Partial,
        Err(Stop::Garbage(why)) => Read::Garbage(why),
    }
}

pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn request(&mut self) -> Result<Request> {
        let mut request = self.head()?;
        match framing(&request.fields)? {
            Framing::Chunked if request.version != "HTTP/1.1" => {
                return Err(Stop::Garbage("chunks in HTTP/1.0"));
            }
            Framing::Chunked => (request.body, request.trailers) = self.chunks()?,
            Framing::Length(length) => request.body = self.take(length)?.to_vec(),
            Framing::None => {}
        }
        Ok(request)
    }

    fn head(&mut self) -> Result<Request> {
        let line = self.line()?;
        let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let [method, target, version] = words[..] else {
            return Err(Stop::Garbage("a request line that is not three words"));
        };
        if method.is_empty() || !method.iter().all(is_token) {
            return Err(Stop::Garbage("no method"));
        }
        if target.is_empty() || !target.iter().all(|byte| (0x21..0x7f).contains(byte)) {
            return Err(Stop::Garbage("no target"));
        }
        if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
            return Err(Stop::Garbage("no version"));
        }
        Ok(Request {
            method: latin1(method),
            target: latin1(target),
            version: latin1(version),
            fields: self.fields()?,
            body: Vec::new(),
            trailers: Fields::default(),
        })
    }

    fn response(&mut self, to_head: bool, ended: bool) -> Result<Response> {
        loop {
            let line = latin1(self.line()?);
            // An answer may be in the version of the request.
            let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
            let status = rest.and_then(|rest| rest.get(..3)?.parse().ok());
            let status: u16 = status.ok_or(Stop::Garbage("no status line"))?;
            let fields = self.fields()?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let body = match framing(&fields)? {
                _ if to_head || status == 204 || status == 304 => Vec::new(),
                Framing::Chunked => self.chunks()?.0,
                Framing::Length(length) => self.take(length)?.to_vec(),
                Framing::None if ended => std::mem::take(&mut self.bytes)[self.at..].to_vec(),
                Framing::None => return Err(Stop::Partial),
            };
            return Ok(Response { status, fields, body });
        }
    }

    fn fields(&mut self) -> Result<Fields> {
        let mut fields = Fields::default();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or(Stop::Garbage("no colon"))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || !name.iter().all(is_token) {
                return Err(Stop::Garbage("the name of a field is no token"));
            }
            if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
                return Err(Stop::Garbage("a control character in a value"));
            }
            fields.0.push((latin1(name).to_ascii_lowercase(), latin1(value)));
        }
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let size = latin1(self.line()?);
            let sound = (1..=16).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = sound.then(|| usize::from_str_radix(&size, 16).ok()).flatten();
            match size.ok_or(Stop::Garbage("no size of a chunk, or more than that"))? {
                0 => return Ok((body, self.fields()?)),
                size => body.extend(self.take(size)?),
            }
            if !self.line()?.is_empty() {
                return Err(Stop::Garbage("a chunk is longer than it said"));
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(Stop::Garbage("no such length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Partial)?;
        self.at = end;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Stop::Partial)?;
        let line = rest[..end].strip_suffix(b"\r").ok_or(Stop::Garbage("LF alone"))?;
        if line.contains(&b'\r') {
            return Err(Stop::Garbage("CR alone"));
        }
        self.at += end + 1;
        Ok(line)
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(fields: &Fields) -> Result<Framing> {
    let lengths: Vec<_> = fields.all("content-length").collect();
    let codings: Vec<_> = fields.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::None),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([length], []) => {
            let canonical = length.bytes().all(|byte| byte.is_ascii_digit())
                && (*length == "0" || !length.starts_with('0'));
            let length = canonical.then(|| length.parse().ok()).flatten();
            Ok(Framing::Length(length.ok_or(Stop::Garbage("no canonical Content-Length"))?))
        }
        _ => Err(Stop::Garbage("framing that can be understood in two ways")),
    }
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[test]
fn only_what_can_be_understood_in_one_way_is_a_message() {
    let garbage = |text: &str| matches!(request(text.as_bytes()), Read::Garbage(_));
    assert!(garbage("GET / HTTP/1.1\nHost: a\n\n"));
    assert!(garbage("GET / HTTP/1.1\r\nContent-Length: 01\r\n\r\n"));
    assert!(garbage("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"));
    assert!(garbage("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\n\r\n"));
    assert!(garbage("GET / HTTP/1.1\r\nX : a\r\n\r\n"));
    let chunked =
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\nnext";
    let Read::Whole(found, used) = request(chunked) else { panic!("it is whole") };
    assert_eq!((found.body, &chunked[used..]), (b"hello".to_vec(), &b"next"[..]));
    assert_eq!(found.trailers.first("x"), Some("y"));
    assert!(matches!(request(&chunked[..used - 1]), Read::Partial));
}
