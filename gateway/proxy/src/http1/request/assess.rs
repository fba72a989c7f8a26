//! What a head whose lines are sound says as a whole: where its body ends, and whether it is plainly ordinary.

use http::Version;

use super::super::framing::{Delimited, number};
use super::super::known::Known;
use super::{Field, RequestLine, bad};
use crate::error::{Failure, Reason};

/// The most words that all `Connection` fields of a request may have together.
const MAX_CONNECTION_OPTIONS: usize = 100;
/// Largest `Content-Length` that is taken, in bytes: more does not fit a signed number, which an endpoint may keep it in.
const MAX_LENGTH: u64 = i64::MAX as u64;
/// The methods of ordinary requests.
const ORDINARY_METHODS: [&[u8]; 7] = [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"];

/// What a sound head says.
pub(super) struct Said {
    pub(super) framing: Delimited,
    /// Whether the request is plainly ordinary.
    pub(super) is_ordinary: bool,
    /// Whether the connection is to be closed after the response.
    pub(super) closes: bool,
}

/// What has been seen among the fields.
#[derive(Default)]
struct Seen<'a> {
    hosts: usize,
    authorizations: usize,
    has_cookie: bool,
    connection_options: usize,
    length: Option<u64>,
    coding: Option<&'a [u8]>,
    /// Whether there is something that hyper or the handler behind it must look at.
    unordinary: bool,
    closes: bool,
}

/// Reads a head as a whole.
///
/// # Errors
/// The request is not valid, or not unambiguous.
pub(super) fn assess(bytes: &[u8], line: &RequestLine, fields: &[Field]) -> Result<Said, Failure> {
    let mut seen = Seen::default();
    for field in fields {
        let value = &bytes[field.value.clone()];
        match field.known {
            Some(known) => seen.note(known, value)?,
            None => check_spelling(&bytes[field.name.clone()])?,
        }
    }
    let method = &bytes[line.method.clone()];
    let framing = seen.framing(line.version)?;
    seen.check(line.version)?;
    if method == b"TRACE" {
        seen.check_trace(framing)?;
    }
    let is_ordinary = !seen.unordinary
        && line.version == Version::HTTP_11
        && ORDINARY_METHODS.contains(&method)
        && bytes.get(line.target.start) == Some(&b'/');
    Ok(Said { framing, is_ordinary, closes: seen.closes })
}

impl<'a> Seen<'a> {
    fn note(&mut self, known: Known, value: &'a [u8]) -> Result<(), Failure> {
        match known {
            Known::Host => self.hosts += 1,
            Known::ContentLength => {
                once(&mut self.length, length(value)?, "the request has more than one content-length")?;
            }
            Known::TransferEncoding => {
                once(&mut self.coding, value, "the request has more than one transfer-encoding")?;
            }
            Known::Connection => self.note_connection(value)?,
            Known::Authorization => self.authorizations += 1,
            Known::Cookie => self.has_cookie = true,
            Known::Expect | Known::Upgrade => self.unordinary = true,
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Failure> {
        for option in members(value) {
            self.connection_options += 1;
            if self.connection_options > MAX_CONNECTION_OPTIONS {
                return Err(bad("connection has too many options"));
            }
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("host") || is("content-length") || is("transfer-encoding") {
                return Err(bad("connection lists a field that is not for one connection only"));
            }
            if is("close") {
                self.closes = true;
            } else if !is("keep-alive") {
                self.unordinary = true;
            }
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Delimited, Failure> {
        match (self.coding, self.length) {
            (None, None | Some(0)) => Ok(Delimited::None),
            (None, Some(length)) => Ok(Delimited::Length(length)),
            (Some(_), Some(_)) => Err(bad("the request has both content-length and transfer-encoding")),
            (Some(_), None) if version == Version::HTTP_10 => Err(bad("HTTP/1.0 knows no transfer-encoding")),
            (Some(coding), None) => check_coding(coding).map(|()| Delimited::Chunked),
        }
    }

    fn check(&self, version: Version) -> Result<(), Failure> {
        if self.hosts > 1 {
            return Err(bad("the request has more than one host"));
        }
        if self.hosts == 0 && version == Version::HTTP_11 {
            return Err(bad("the request has no Host"));
        }
        if self.authorizations > 1 {
            return Err(bad("the request has more than one authorization"));
        }
        Ok(())
    }

    /// The answer to TRACE repeats the request: it must have no body (RFC 9110 section 9.3.8), and no secrets that a
    /// script could read in the answer.
    fn check_trace(&self, framing: Delimited) -> Result<(), Failure> {
        if framing != Delimited::None || self.length.is_some() {
            return Err(bad("TRACE has no body"));
        }
        if self.has_cookie || self.authorizations > 0 {
            return Err(Failure::new(
                Reason::MethodNotAllowed,
                "TRACE is not served with credentials: leave out cookie and authorization",
            ));
        }
        Ok(())
    }
}

/// Takes what is said, unless something was said before.
fn once<T>(slot: &mut Option<T>, said: T, otherwise: &'static str) -> Result<(), Failure> {
    if slot.replace(said).is_some() { Err(bad(otherwise)) } else { Ok(()) }
}

/// Endpoints that turn names into variables (CGI and what came after it) cannot tell these from the real.
fn check_spelling(name: &[u8]) -> Result<(), Failure> {
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    if is("content_length") || is("transfer_encoding") {
        return Err(bad("a field looks like one that frames the body, but is spelled with an underscore"));
    }
    Ok(())
}

/// Reads a length: digits alone, without leading zeros, so that there is one way to write it.
fn length(value: &[u8]) -> Result<u64, Failure> {
    let length = number(value).filter(|length| *length <= MAX_LENGTH);
    length.ok_or_else(|| bad("content-length is not a decimal number, or too large"))
}

/// Whether the body is in chunks and in no other coding.
fn check_coding(value: &[u8]) -> Result<(), Failure> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let codings: Vec<_> = members(value).collect();
    let (last, before) = codings.split_last().ok_or_else(|| bad("transfer-encoding is empty"))?;
    let is_framed = is_chunked(last) && !before.iter().any(|coding| coding.is_empty() || is_chunked(coding));
    if !is_framed {
        return Err(bad("transfer-encoding does not end with its only chunked"));
    }
    Err(Failure::new(Reason::UnknownTransferCoding, "the only transfer coding served here is chunked"))
}

/// The members of a list, with the empty ones.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
