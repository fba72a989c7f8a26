//! The head of a response to a client, as bytes, and how its body goes out.

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::ext::ReasonPhrase;

use super::framing::{Delimited, cannot_have_body};
use super::write::field;
use crate::http::trailers;

/// What is to be known besides the head.
#[derive(Debug)]
pub(crate) struct Manner {
    /// Whether the request was one for the head alone.
    pub(crate) head_only: bool,
    /// Whether the connection closes behind the response.
    pub(crate) closes: bool,
    /// The length of the body, where it is known.
    pub(crate) length: Option<u64>,
    /// The date, where the head has none.
    pub(crate) date: Option<HeaderValue>,
}

impl Manner {
    fn framing(&self, status: StatusCode) -> Delimited {
        match self.length {
            _ if self.head_only || cannot_have_body(status) => Delimited::None,
            Some(length) => Delimited::Length(length),
            None => Delimited::Chunked,
        }
    }
}

/// Appends the head of a response in HTTP/1.1; gives the framing that it tells.
pub(crate) fn head(parts: &Parts, manner: &Manner, out: &mut Vec<u8>) -> Delimited {
    let framing = manner.framing(parts.status);
    status_line(parts, out);
    let mut has_date = false;
    let mut has_length = false;
    for (name, value) in &parts.headers {
        if *name == header::CONTENT_LENGTH {
            // The answer to HEAD says what the body would have.
            if !manner.head_only || cannot_have_body(parts.status) || has_length {
                continue;
            }
            has_length = true;
        } else if *name == header::CONNECTION || *name == header::TRANSFER_ENCODING {
            continue;
        } else if *name == header::DATE {
            has_date = true;
        }
        field(name, value, out);
    }
    match framing {
        Delimited::Length(length) => content_length(length, out),
        Delimited::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Delimited::None => {
            if let (false, Some(length @ 1..)) = (has_length || cannot_have_body(parts.status), manner.length)
            {
                content_length(length, out);
            }
        }
    }
    if manner.closes {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if let (false, Some(date)) = (has_date, &manner.date) {
        field(&header::DATE, date, out);
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Whether a head of ours, or one that was made fit for the client, says that the connection closes behind it.
pub(crate) fn says_close(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Whether this is the method that asks for a head alone.
pub(crate) fn is_head_only(method: &Method) -> bool {
    *method == Method::HEAD
}

/// Keeps of the trailers what the head has announced: a reader may have no place for others.
pub(crate) fn announced(trailers: &HeaderMap, announcement: &HeaderValue) -> HeaderMap {
    let is_announced = |name: &HeaderName| {
        let mut names = announcement.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|announced| announced.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let kept = trailers.iter().filter(|(name, _)| is_announced(name) && trailers::is_fit(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn status_line(parts: &Parts, out: &mut Vec<u8>) {
    // As much as most heads need, so that the buffer grows once.
    out.reserve(64 + parts.headers.len() * 32);
    let phrase = if parts.extensions.is_empty() { None } else { parts.extensions.get::<ReasonPhrase>() };
    if parts.status == StatusCode::OK && phrase.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    let usual = || parts.status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(phrase.map_or_else(usual, ReasonPhrase::as_bytes));
    out.extend_from_slice(b"\r\n");
}

fn content_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    const PLAIN: Manner = Manner {
        head_only: false,
        closes: false,
        length: Some(3),
        date: Some(HeaderValue::from_static("now")),
    };

    fn written(status: u16, fields: &[(&'static str, &'static str)], manner: Manner) -> (String, Delimited) {
        let mut parts = Response::new(()).into_parts().0;
        parts.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        let mut out = Vec::new();
        let framing = head(&parts, &manner, &mut out);
        (String::from_utf8(out).unwrap().replace("date: now\r\n", ""), framing)
    }

    #[test]
    fn the_framing_follows_the_body_and_not_the_fields() {
        for (status, fields, manner, expected, framing) in [
            (200, &[][..], PLAIN, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Delimited::Length(3)),
            (
                200,
                &[("content-length", "7"), ("content-length", "8"), ("transfer-encoding", "chunked")],
                PLAIN,
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
                Delimited::Length(3),
            ),
            (
                200,
                &[("content-length", "7")],
                Manner { length: None, ..PLAIN },
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                Delimited::Chunked,
            ),
            (
                404,
                &[],
                Manner { length: Some(0), closes: true, ..PLAIN },
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                Delimited::Length(0),
            ),
            (
                u16::MAX % 1000,
                &[("connection", "close")],
                Manner { length: Some(u64::MAX), ..PLAIN },
                "HTTP/1.1 535 \r\ncontent-length: 18446744073709551615\r\n\r\n",
                Delimited::Length(u64::MAX),
            ),
        ] {
            assert_eq!(written(status, fields, manner), (expected.to_owned(), framing));
        }
    }

    #[test]
    fn a_response_without_a_body_says_what_it_would_have() {
        let head_only = |length| Manner { head_only: true, length: Some(length), ..PLAIN };
        for (status, fields, manner, expected) in [
            (
                200,
                &[("content-length", "7")][..],
                head_only(0),
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
            ),
            (200, &[], head_only(0), "HTTP/1.1 200 OK\r\n\r\n"),
            (200, &[], head_only(9), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"),
            (
                304,
                &[("content-length", "7")],
                Manner { length: Some(0), ..PLAIN },
                "HTTP/1.1 304 Not Modified\r\n\r\n",
            ),
            (204, &[("content-length", "0")], PLAIN, "HTTP/1.1 204 No Content\r\n\r\n"),
        ] {
            assert_eq!(written(status, fields, manner), (expected.to_owned(), Delimited::None));
        }
    }

    #[test]
    fn a_date_and_a_phrase_of_the_endpoints_own_stay() {
        let mut parts = Response::new(()).into_parts().0;
        parts.headers.insert(header::DATE, HeaderValue::from_static("then"));
        parts.extensions.insert(ReasonPhrase::from_static(b"Fine"));
        let mut out = Vec::new();
        head(&parts, &PLAIN, &mut out);
        assert_eq!(out, b"HTTP/1.1 200 Fine\r\ndate: then\r\ncontent-length: 3\r\n\r\n");
    }

    #[test]
    fn trailers_are_those_that_were_announced() {
        let trailers: HeaderMap = [("x-sum", "1"), ("x-other", "2"), ("content-type", "3")]
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let kept = announced(&trailers, &HeaderValue::from_static("Content-Type, X-Sum"));
        assert_eq!(
            kept,
            HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))])
        );
    }
}
