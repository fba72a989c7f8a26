//! Where the body of a message ends (RFC 9112 section 6.3), and whether the connection lives on (section 9.3).

use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, Version, header};

use super::Malformed;
use crate::http::survey::{Known, Survey};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By the last of its chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// How the body of a message is told to end whose connection lives on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimited {
    /// There is no body, whatever the fields say.
    None,
    /// After so many bytes.
    Length(u64),
    /// By the last of its chunks.
    Chunked,
}

impl Delimited {
    /// The framing of the body, if there is one.
    pub(crate) fn body(self) -> Option<Framing> {
        match self {
            Self::None => None,
            Self::Length(length) => Some(Framing::Length(length)),
            Self::Chunked => Some(Framing::Chunked),
        }
    }
}

impl Framing {
    /// That of the response with this head, and these fields in it, to a request with this method.
    ///
    /// # Errors
    /// If readers may differ over it.
    pub(crate) fn of_response(method: &Method, head: &Parts, survey: &Survey) -> Result<Self, Malformed> {
        let (chunked, length) = said(&head.headers, |known| survey.has(known))?;
        if chunked && head.version == Version::HTTP_10 {
            return Err(Malformed::Ambiguous("a transfer coding in HTTP/1.0"));
        }
        Ok(match length {
            _ if has_no_body(method, head.status) => Self::Length(0),
            _ if chunked => Self::Chunked,
            Some(length) => Self::Length(length),
            None => Self::UntilClose,
        })
    }

    /// That of the request with these fields.
    ///
    /// # Errors
    /// If readers may differ over it.
    pub(crate) fn of_request(headers: &HeaderMap) -> Result<Self, Malformed> {
        let (chunked, length) = said(headers, |_| true)?;
        Ok(if chunked { Self::Chunked } else { Self::Length(length.unwrap_or(0)) })
    }
}

/// Whether the body is chunked, and the length that is said of it, by the fields that there may be.
fn said(headers: &HeaderMap, may_have: impl Fn(Known) -> bool) -> Result<(bool, Option<u64>), Malformed> {
    let chunked = may_have(Known::TransferEncoding) && is_chunked(headers)?;
    let length = if may_have(Known::ContentLength) { length(headers)? } else { None };
    if chunked && length.is_some() {
        return Err(Malformed::Ambiguous("a length beside a transfer coding"));
    }
    Ok((chunked, length))
}

fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || cannot_have_body(status)
}

/// Whether responses with this status have no body, to whatever method.
pub(crate) fn cannot_have_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn is_chunked(headers: &HeaderMap) -> Result<bool, Malformed> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Malformed::Ambiguous("a transfer coding other than chunked once"));
    }
    Ok(true)
}

/// The length that the head says. It may say it once: a list of equal lengths, which the RFC would let pass, is nothing
/// that a sound endpoint sends.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Malformed::Ambiguous("two lengths"));
    }
    number(length.as_bytes()).map(Some).ok_or(Malformed::Ambiguous("a length that is no number"))
}

/// Digits alone. Zeros before them would go on to the other side, and are octal to some.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Whether the endpoint lets the connection carry another request after a response with this head.
pub(crate) fn is_persistent(head: &Parts, survey: &Survey) -> bool {
    if !survey.has(Known::Connection) {
        return head.version == Version::HTTP_11;
    }
    let says = |option: &[u8]| {
        head.headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|said| said.trim_ascii().eq_ignore_ascii_case(option))
    };
    !says(b"close") && (head.version == Version::HTTP_11 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;

    fn head(version: Version, status: u16, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut parts = Response::new(()).into_parts().0;
        parts.version = version;
        parts.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    fn of_response(method: &Method, head: &Parts) -> Result<Framing, Malformed> {
        Framing::of_response(method, head, &Survey::of(&head.headers))
    }

    fn framing(status: u16, fields: &[(&'static str, &'static str)]) -> Result<Framing, Malformed> {
        of_response(&Method::GET, &head(Version::HTTP_11, status, fields))
    }

    #[test]
    fn the_end_is_told_in_one_of_three_ways() {
        assert_eq!(framing(200, &[]), Ok(Framing::UntilClose));
        for (said, length) in [("7", 7), ("0", 0), ("1024", 1024), ("18446744073709551615", u64::MAX)] {
            assert_eq!(framing(200, &[("content-length", said)]), Ok(Framing::Length(length)));
        }
        assert_eq!(framing(200, &[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked));
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for status in [100, 204, 304] {
            assert_eq!(framing(status, &[("content-length", "7")]), Ok(Framing::Length(0)));
        }
        let said = head(Version::HTTP_11, 200, &[("transfer-encoding", "chunked")]);
        assert_eq!(of_response(&Method::HEAD, &said), Ok(Framing::Length(0)));
    }

    #[test]
    fn what_readers_may_take_differently_is_refused() {
        for length in ["", "+5", "05", "00", "-5", "5,5", "5, 5", " 5", "0x5", "5 5", "18446744073709551616"]
        {
            assert!(framing(200, &[("content-length", length)]).is_err(), "{length:?}");
        }
        for coding in ["", "gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked"] {
            assert!(framing(200, &[("transfer-encoding", coding)]).is_err(), "{coding:?}");
        }
        assert!(framing(200, &[("content-length", "5"), ("content-length", "5")]).is_err());
        assert!(framing(200, &[("content-length", "5"), ("transfer-encoding", "chunked")]).is_err());
        assert!(framing(200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]).is_err());
        let old = head(Version::HTTP_10, 200, &[("transfer-encoding", "chunked")]);
        assert!(of_response(&Method::GET, &old).is_err());
    }

    #[test]
    fn a_connection_lives_on_unless_it_is_said_to_close() {
        let persists = |head: Parts| is_persistent(&head, &Survey::of(&head.headers));
        let lives = |version, said: &'static str| persists(head(version, 200, &[("connection", said)]));
        assert!(persists(head(Version::HTTP_11, 200, &[])) && !persists(head(Version::HTTP_10, 200, &[])));
        assert!(lives(Version::HTTP_11, "x"));
        assert!(!lives(Version::HTTP_11, "x, Close"));
        assert!(!lives(Version::HTTP_10, "x"));
        assert!(lives(Version::HTTP_10, "Keep-Alive"));
        assert!(!lives(Version::HTTP_10, "keep-alive, close"));
    }
}
