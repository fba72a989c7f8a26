//! The head of a client's request, read from raw bytes and strictly.
//!
//! A head is screened byte by byte as it comes, and line by line, so that a fault is known at the first byte that makes
//! it one, however the bytes were cut on the way. Runs of bytes of which nothing can be told without the rest of their
//! line are passed over many at a time. Nothing is repaired: what two readers might understand differently is refused.
//! What is sound is either plainly ordinary and becomes [`Parts`], or it is left to hyper with all its bytes.
//!
//! There is no second parser behind the screen: the places it found are the ones that the head is made of. The types of
//! the `http` crate check their bytes once more.

mod assess;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version};

use super::classes::{is_target, text, token};
use super::fields::{Field, Unfit};
use super::framing::Delimited;
use crate::error::{Failure, Reason};

/// Longest request target that is taken, in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// Empty lines that may stand before a request: some clients send one behind a body (RFC 9112 section 2.2).
const MAX_EMPTY_LINES: usize = 8;
/// How many fields a request gets on its way, at most in most cases: room is made for all at once.
const ADDED_FIELDS: usize = 8;
/// Longest method that is taken, in bytes. The longest that is registered has 17.
const MAX_METHOD: usize = 64;
/// What an HTTP/2 connection begins with (RFC 9113 section 3.4), and how much of it is its first line.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_LINE: usize = b"PRI * HTTP/2.0".len();

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// All of it, in bytes, with the empty lines around it.
    pub(crate) max_bytes: usize,
    /// How many fields it may have.
    pub(crate) max_fields: usize,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Sound, but not all of a head.
    Partial,
    /// All of the head of a request that needs no more care: [`HeadReader::take`] makes it one.
    Ordinary(Delimited),
    /// All of the head of a sound request that is not plainly ordinary.
    ToHyper(Delimited),
    /// The preface of an HTTP/2 connection. On a connection that has had a request it is nothing valid.
    Http2,
    /// What is wrong. Nothing that follows on the connection can be trusted.
    Refused(Failure),
}

/// Reads one head. It remembers how far it has read, so that each byte is looked at once.
#[derive(Debug)]
pub(crate) struct HeadReader {
    limits: Limits,
    /// The next byte to look at.
    at: usize,
    /// Where its line begins.
    line: usize,
    after_cr: bool,
    /// Whether only a method has been read so far.
    in_method: bool,
    empty_lines: usize,
    request_line: Option<RequestLine>,
    fields: Vec<Field>,
    closes: bool,
}

/// Where the parts of the request line stand.
#[derive(Debug, Clone)]
struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    version: Version,
}

/// What a line that has ended was.
enum Line {
    OneOfMore,
    LastOfHead,
    Http2Preface,
}

// === impl HeadReader ===

impl HeadReader {
    /// Begins before the first byte of a head.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            at: 0,
            line: 0,
            after_cr: false,
            in_method: true,
            empty_lines: 0,
            request_line: None,
            fields: Vec::new(),
            closes: false,
        }
    }

    /// Begins anew with another head, under the limits of today; keeps its memory.
    pub(crate) fn restart(&mut self, limits: Limits) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::new(limits) };
    }

    /// The limits of the head that it reads.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Lets go of its memory, if it is not within a head.
    pub(crate) fn release(&mut self) {
        if self.at == 0 {
            self.fields = Vec::new();
        }
    }

    /// Goes on with what has come; `bytes` begin where they began at the first call. After any verdict but
    /// [`Verdict::Partial`] there is nothing more to read.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Verdict {
        match self.screen(bytes) {
            Ok(None) => Verdict::Partial,
            Ok(Some(Line::Http2Preface)) => self.preface(bytes),
            Ok(Some(_)) => self.decide(bytes),
            Err(failure) => Verdict::Refused(failure),
        }
    }

    /// The first line of the preface has come.
    fn preface(&mut self, bytes: &[u8]) -> Verdict {
        let came = &bytes[self.line..];
        if self.line > 0 || !came.iter().zip(HTTP2_PREFACE).all(|(byte, expected)| byte == expected) {
            return Verdict::Refused(bad("the preface of HTTP/2 is not complete, or not the first to come"));
        }
        if came.len() >= HTTP2_PREFACE.len() {
            return Verdict::Http2;
        }
        // The line is read once more when the rest is here.
        (self.at, self.in_method) = (self.line, true);
        Verdict::Partial
    }

    /// How many bytes have been read: after a verdict, where the head ends.
    pub(crate) fn length(&self) -> usize {
        self.at
    }

    /// Whether the client asks for the connection to be closed after the response to the head that has been read.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Takes the head that has been read off the buffer, which begins with the body then. Its fields are put into
    /// `headers`, which are empty but may have memory.
    ///
    /// # Errors
    /// The types of the `http` crate take less than the screen; a fault here, but the request's loss alone.
    pub(crate) fn take(&self, buffer: &mut BytesMut, headers: HeaderMap) -> Result<Parts, Failure> {
        let head = buffer.split_to(self.at).freeze();
        let request_line = self.request_line.as_ref().ok_or_else(|| bad("the head is not whole"))?;
        self.parts(request_line, &head, headers)
    }

    /// Looks at the bytes that are new; ready with the last line that matters.
    fn screen(&mut self, bytes: &[u8]) -> Result<Option<Line>, Failure> {
        let within = &bytes[..bytes.len().min(self.limits.max_bytes)];
        while self.at < within.len() {
            if self.pass(&within[self.at..])? {
                let line = self.line..self.at - 2;
                match self.end_line(bytes, line)? {
                    Line::OneOfMore => self.line = self.at,
                    last => return Ok(Some(last)),
                }
            }
        }
        if within.len() < bytes.len() { Err(self.too_large()) } else { Ok(None) }
    }

    /// Passes over the bytes that come next, as far as they are all alike. Whether they end the line.
    fn pass(&mut self, rest: &[u8]) -> Result<bool, Failure> {
        let run = if self.after_cr {
            0
        } else if self.in_method {
            token(&rest[..rest.len().min(MAX_METHOD.saturating_sub(self.at - self.line))])
        } else {
            text(rest)
        };
        self.at += run;
        match rest[run..] {
            [] => Ok(false),
            [b'\r', b'\n', ..] if !self.after_cr => {
                self.at += 2;
                Ok(true)
            }
            [byte, ..] => {
                let ends_line = self.check_byte(byte)?;
                self.at += 1;
                Ok(ends_line)
            }
        }
    }

    /// Checks what can be told of a byte that ends a run, without the rest of its line. Whether it ends the line.
    fn check_byte(&mut self, byte: u8) -> Result<bool, Failure> {
        match byte {
            b'\n' if self.after_cr => {
                self.after_cr = false;
                return Ok(true);
            }
            b'\n' => return Err(bad("a line of the head ends with LF alone")),
            _ if self.after_cr => return Err(bad("the head has a CR without LF")),
            b'\r' => self.after_cr = true,
            b' ' if self.in_method && self.at > self.line => self.in_method = false,
            _ if self.in_method => return Err(bad("the method is not valid")),
            b'\t' => {}
            0..=0x1f | 0x7f => return Err(bad("the head has a control character")),
            _ => {}
        }
        Ok(false)
    }

    fn end_line(&mut self, bytes: &[u8], line: Range<usize>) -> Result<Line, Failure> {
        if self.request_line.is_some() {
            if line.is_empty() {
                return Ok(Line::LastOfHead);
            }
            if self.fields.len() == self.limits.max_fields {
                return Err(too_many_fields());
            }
            let field = Field::read(bytes, line.clone()).ok_or_else(|| field_fault(&bytes[line]))?;
            self.fields.push(field);
        } else if line.is_empty() {
            self.empty_lines += 1;
            if self.empty_lines > MAX_EMPTY_LINES {
                return Err(bad("too many empty lines stand before the request"));
            }
        } else if bytes.get(line.clone()) == HTTP2_PREFACE.get(..HTTP2_LINE) {
            return Ok(Line::Http2Preface);
        } else {
            self.in_method = false;
            self.request_line = Some(request_line(bytes, line)?);
        }
        Ok(Line::OneOfMore)
    }

    fn too_large(&self) -> Failure {
        if self.request_line.is_none() && !self.in_method {
            return target_too_long();
        }
        Failure::new(Reason::HeadersTooLarge, "the head of the request is too large")
    }

    /// The head is whole and its lines are sound: what it says, and who serves it.
    fn decide(&mut self, bytes: &[u8]) -> Verdict {
        let Some(request_line) = &self.request_line else { return Verdict::Partial };
        match assess::assess(bytes, request_line, &self.fields) {
            Ok(said) => {
                self.closes = said.closes;
                if said.is_ordinary {
                    Verdict::Ordinary(said.framing)
                } else {
                    Verdict::ToHyper(said.framing)
                }
            }
            Err(failure) => Verdict::Refused(failure),
        }
    }

    fn parts(&self, request_line: &RequestLine, head: &Bytes, headers: HeaderMap) -> Result<Parts, Failure> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = Method::from_bytes(&head[request_line.method.clone()])
            .map_err(|_| bad("the method is not valid"))?;
        parts.uri = PathAndQuery::from_maybe_shared(head.slice(request_line.target.clone()))
            .map(Uri::from)
            .map_err(|_| bad("the request target is not valid"))?;
        parts.version = request_line.version;
        parts.headers = headers;
        parts.headers.reserve(self.fields.len() + ADDED_FIELDS);
        for field in &self.fields {
            field.append(head, &mut parts.headers).map_err(unfit)?;
        }
        Ok(parts)
    }
}

/// Reads `method SP target SP version`, with exactly these two spaces.
fn request_line(bytes: &[u8], line: Range<usize>) -> Result<RequestLine, Failure> {
    let text = &bytes[line.clone()];
    let mut pieces = text.splitn(2, |byte| *byte == b' ');
    let method = pieces.next().unwrap_or_default();
    let rest = pieces.next().unwrap_or_default();
    let (target, version) = match rest.strip_suffix(b" HTTP/1.1") {
        Some(target) => (target, Version::HTTP_11),
        None => (rest.strip_suffix(b" HTTP/1.0").unwrap_or_default(), Version::HTTP_10),
    };
    if target.is_empty() || target.len() > MAX_TARGET || !is_target(target) {
        return Err(request_line_fault(text));
    }
    let method = line.start..line.start + method.len();
    let target = method.end + 1..method.end + 1 + target.len();
    Ok(RequestLine { method, target, version })
}

/// What is wrong with a request line.
fn request_line_fault(text: &[u8]) -> Failure {
    let mut pieces = text.split(|byte| *byte == b' ');
    let (Some(_), Some(target), Some(version), None) =
        (pieces.next(), pieces.next(), pieces.next(), pieces.next())
    else {
        return bad("the request line is not a method, a target and a version with one space between");
    };
    if !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return bad("the version in the request line is neither HTTP/1.1 nor HTTP/1.0");
    }
    if target.len() > MAX_TARGET {
        return target_too_long();
    }
    bad("the request target has a character that must be percent-encoded, or a fragment")
}

/// What is wrong with a line that is no field.
fn field_fault(text: &[u8]) -> Failure {
    if text.starts_with(b" ") || text.starts_with(b"\t") {
        return bad("a line of the head begins with white space");
    }
    if !text.contains(&b':') {
        return bad("a field has no colon");
    }
    bad("the name of a field is not valid")
}

fn unfit(unfit: Unfit) -> Failure {
    match unfit {
        Unfit::Name => bad("the name of a field is not valid"),
        Unfit::Value => bad("the value of a field is not valid"),
        Unfit::Number => too_many_fields(),
    }
}

fn too_many_fields() -> Failure {
    Failure::new(Reason::HeadersTooLarge, "the request has too many header fields")
}

fn target_too_long() -> Failure {
    Failure::new(Reason::TargetTooLong, "the request target is too long")
}

fn bad(message: &'static str) -> Failure {
    Failure::new(Reason::BadRequest, message)
}
