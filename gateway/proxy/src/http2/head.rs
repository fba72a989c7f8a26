//! What the head of a request says, from its fields.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use super::hpack::Sink;
use super::hpack::field::{Field, Meaning, Name, Value};
use crate::error::{Failure, Reason};
use crate::http1::request::Limits;

/// Fields that a request gets on its way: room is made for all at once.
const USUAL_FIELDS: usize = 16;
/// What a field takes beside its name and value, as HTTP/1.1 would write it.
const AROUND: usize = ": \r\n".len();

/// Takes the fields of one head.
#[derive(Debug)]
pub(super) struct Head {
    limits: Limits,
    headers: HeaderMap,
    method: Option<Method>,
    path: Option<PathAndQuery>,
    authority: Option<HeaderValue>,
    /// Whether there is one, and whether it is of the web.
    scheme: Option<bool>,
    length: Option<u64>,
    host: bool,
    /// Whether a field has come behind which no pseudo-header may.
    regular: bool,
    is_trailers: bool,
    fields: usize,
    bytes: usize,
    too_large: bool,
    malformed: bool,
}

/// Why a head is no request.
#[derive(Debug)]
pub(super) enum Rejected {
    /// It is sound, but refused with an answer.
    Refused(Failure),
    /// It breaks the rules of HTTP/2: there is no answer, and the stream is reset.
    Malformed,
}

impl Head {
    /// One that begins; the fields go into `headers`, which are empty but may have memory.
    pub(super) fn new(limits: Limits, mut headers: HeaderMap, is_trailers: bool) -> Self {
        if headers.capacity() < USUAL_FIELDS && !is_trailers {
            headers.reserve(USUAL_FIELDS);
        }
        Self {
            limits,
            headers,
            method: None,
            path: None,
            authority: None,
            scheme: None,
            length: None,
            host: false,
            regular: false,
            is_trailers,
            fields: 0,
            bytes: 0,
            too_large: false,
            malformed: false,
        }
    }

    /// All fields have come: the request, and how long its body is to be.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn finish(self) -> Result<(Parts, Option<u64>), Rejected> {
        if self.malformed {
            return Err(Rejected::Malformed);
        }
        if self.too_large {
            return Err(refused(Reason::HeadersTooLarge, "the head of the request is too large"));
        }
        let length = self.length;
        Ok((self.parts()?, length))
    }

    /// All fields have come, and they are trailers; none, if they are not.
    pub(super) fn into_trailers(self) -> Option<HeaderMap> {
        (!self.malformed && !self.too_large).then_some(self.headers)
    }

    /// The memory of a head that is of no use.
    pub(super) fn into_headers(self) -> HeaderMap {
        self.headers
    }

    fn parts(mut self) -> Result<Parts, Rejected> {
        let Some(method) = self.method else { return Err(Rejected::Malformed) };
        let is_connect = method == Method::CONNECT;
        let path = match (self.scheme, self.path) {
            // RFC 9113 section 8.5: CONNECT has an authority alone. It is refused, but elsewhere.
            (None, None) if is_connect && self.authority.is_some() => PathAndQuery::from_static("/"),
            (Some(_), Some(path)) if !is_connect => path,
            _ => return Err(Rejected::Malformed),
        };
        if self.scheme == Some(false) {
            return Err(refused(Reason::BadRequest, "the only schemes served here are http and https"));
        }
        if let Some(authority) = self.authority {
            // The one says what the other would, and they may not differ.
            if self.host {
                let host = self.headers.get(header::HOST).map(HeaderValue::as_bytes);
                if host.is_none_or(|host| !host.eq_ignore_ascii_case(authority.as_bytes())) {
                    return Err(refused(Reason::BadRequest, ":authority and Host differ"));
                }
            }
            self.headers.insert(header::HOST, authority);
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = method;
        parts.uri = Uri::from(path);
        parts.version = Version::HTTP_2;
        parts.headers = self.headers;
        Ok(parts)
    }

    fn regular(&mut self, name: http::HeaderName, meaning: Meaning, value: HeaderValue) {
        self.regular = true;
        self.malformed |= match meaning {
            Meaning::Plain => false,
            Meaning::OfConnection => true,
            Meaning::Te => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            Meaning::Host => std::mem::replace(&mut self.host, true) && !self.is_trailers,
            Meaning::ContentLength => {
                let length = content_length(&value);
                length.is_none() || self.length.replace(length.unwrap_or(0)).is_some()
            }
        };
        self.too_large |= self.headers.try_append(name, value).is_err();
    }
}

impl Sink for Head {
    fn admits(&mut self, length: usize) -> bool {
        self.fields += 1;
        self.bytes += length + AROUND;
        // The four that are no fields come beside the others.
        let most = self.limits.max_fields.saturating_add(4);
        self.too_large |= self.bytes > self.limits.max_bytes || self.fields > most;
        !self.too_large && !self.malformed
    }

    fn take(&mut self, field: Field) {
        let is_pseudo = !matches!(field.name, Name::Regular(..) | Name::Unfit);
        if is_pseudo && (self.regular || self.is_trailers) {
            self.malformed = true;
            return;
        }
        let twice = match (field.name, field.value) {
            (Name::Regular(name, meaning), Value::Text(value)) => return self.regular(name, meaning, value),
            (Name::Method, Value::Method(method)) => self.method.replace(method).is_some(),
            (Name::Path, Value::Path(path)) => self.path.replace(path).is_some(),
            (Name::Scheme, Value::Scheme(of_the_web)) => self.scheme.replace(of_the_web).is_some(),
            (Name::Authority, Value::Text(authority)) => self.authority.replace(authority).is_some(),
            _ => true,
        };
        self.malformed |= twice;
    }
}

/// The length that is said, in digits alone.
fn content_length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.to_str().ok()?.parse().ok()
}

fn refused(reason: Reason, message: &'static str) -> Rejected {
    Rejected::Refused(Failure::new(reason, message))
}

#[cfg(test)]
mod tests;
