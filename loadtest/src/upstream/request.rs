//! Reading the head of a request.

use httparse::Status;

use crate::chunked::Chunk;

/// The most fields in a head.
const MOST_FIELDS: usize = 100;

/// One request, borrowed from what was read.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    /// As it stands in the request line.
    pub(super) target: &'a str,
    /// Names and values, in their order.
    pub(super) fields: Vec<(&'a str, &'a [u8])>,
    pub(super) framing: Framing,
}

/// What the head says about the connection and the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    pub(super) body: Body,
    /// Whether another request may follow.
    pub(super) keep: bool,
    /// Whether the client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
}

/// What is still to come of the body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    Length(u64),
    Chunked(Chunk),
}

impl<'a> Head<'a> {
    /// The head at the beginning of these bytes with its length, once it is complete.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err("the request is not HTTP/1.1"),
        };
        let fields: Vec<_> = request.headers.iter().map(|field| (field.name, field.value)).collect();
        let framing = Framing::of(&fields, request.version == Some(0))?;
        let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        Ok(Some((Self { method, target, fields, framing }, length)))
    }
}

impl Framing {
    fn of(fields: &[(&str, &[u8])], http10: bool) -> Result<Self, &'static str> {
        let mut framing = Self { body: Body::Length(0), keep: !http10, expects_continue: false };
        let mut has_length = false;
        for (name, value) in fields {
            // The lengths tell most fields apart without comparing.
            match name.len() {
                6 if name.eq_ignore_ascii_case("expect") => {
                    framing.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if name.eq_ignore_ascii_case("connection") => framing.connection(value),
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let length = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
                    framing.body = Body::Length(length.ok_or("the content-length is no number")?);
                    has_length = true;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err("a transfer-encoding other than chunked");
                    }
                    framing.body = Body::Chunked(Chunk::START);
                }
                _ => {}
            }
        }
        if has_length && matches!(framing.body, Body::Chunked(_)) {
            return Err("both content-length and transfer-encoding");
        }
        Ok(framing)
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.keep = false;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep = true;
            }
        }
    }
}

impl Body {
    /// Whether all of it is there.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// The most that may be read without reading into the next request, if that is known.
    pub(super) fn at_most(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }

    /// Goes over bytes; gives how many of them belong to the body, and adds those of its content to `content`.
    ///
    /// # Errors
    /// If they are no chunks.
    pub(super) fn feed(&mut self, bytes: &[u8], content: &mut u64) -> Result<usize, &'static str> {
        match self {
            Self::Length(left) => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                *content += taken;
                Ok(taken as usize)
            }
            Self::Chunked(chunk) => match chunk.feed(bytes, content)? {
                None => Ok(bytes.len()),
                Some(taken) => {
                    *self = Self::Length(0);
                    Ok(taken)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(Head<'_>, usize)>, &'static str> {
        Head::parse(text.as_bytes())
    }

    #[test]
    fn the_fields_say_how_it_goes_on() {
        for (fields, length, keep) in [
            ("", Some(0), true),
            ("Content-Length: 3\r\n", Some(3), true),
            ("Connection: Close\r\n", Some(0), false),
            ("connection: x, close\r\n", Some(0), false),
            ("Transfer-Encoding: chunked\r\n", None, true),
        ] {
            let text = format!("POST /x HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            let (head, taken) = parse(&text).unwrap().unwrap();
            assert_eq!((head.method, head.target, taken), ("POST", "/x", text.len()));
            assert_eq!((head.framing.body.at_most(), head.framing.keep), (length, keep), "{fields:?}");
        }
        assert!(parse("GET / HTTP/1.1\r\nhost:").unwrap().is_none());
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.framing.keep);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "nonsense\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
