//! The head of a response.

mod plain;

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::response::{Parts, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::Malformed;
use super::lines::Lines;

/// So many fields may a head or trailers have.
pub(super) const MOST_FIELDS: usize = 100;

/// Room for what is added on the way (`Via`, a cookie), since to grow is to hash all of it again.
const ROOM_FOR_MORE: usize = 2;

/// What every response of HTTP/1 begins with.
const BEGINNING: &[u8] = b"HTTP/1.";

/// Reads heads of responses, one after the other.
#[derive(Debug)]
pub(crate) struct HeadReader {
    most_bytes: usize,
    lines: Lines,
}

impl HeadReader {
    /// Reads heads of at most so many bytes.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, lines: Lines::default() }
    }

    /// Takes the next head, interim or final, off the front of what was received; nothing, if more bytes must come. If
    /// `spare` is asked, it gives a map that is empty but may have memory.
    ///
    /// # Errors
    /// If this is no head of HTTP/1.0 or 1.1, or one that is too large.
    pub(crate) fn take(
        &mut self,
        received: &mut BytesMut,
        spare: impl FnOnce() -> HeaderMap,
    ) -> Result<Option<Parts>, Malformed> {
        // Told at once, since what speaks another protocol may never send an empty line.
        let beginning = received.len().min(BEGINNING.len());
        if received[..beginning] != BEGINNING[..beginning] {
            return Err(Malformed::Syntax("it does not begin with the version"));
        }
        let Some(length) = self.lines.end(received, self.most_bytes, "the head of the response")? else {
            return Ok(None);
        };
        self.lines = Lines::default();
        let head = received.split_to(length).freeze();
        plain::read(&head, spare).map_or_else(|| parse(&head), Ok).map(Some)
    }
}

fn parse(head: &Bytes) -> Result<Parts, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut said = httparse::Response::new(&mut []);
    // The parser's own leniencies all stay off.
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut said, head, &mut fields);
    if parsed.map_err(Malformed::from)? != Status::Complete(head.len()) {
        return Err(Malformed::Syntax("an empty line within the head"));
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = said
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(Malformed::Syntax("the status is no number from 100 to 999"))?;
    parts.version = if said.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    // The client is told the phrase that the endpoint chose, where it is not the usual one.
    if let Some(phrase) = said.reason.filter(|phrase| Some(*phrase) != parts.status.canonical_reason())
        && let Ok(phrase) = ReasonPhrase::try_from(phrase.as_bytes())
    {
        parts.extensions.insert(phrase);
    }
    parts.headers = collect(head, said.headers)?;
    Ok(parts)
}

/// The fields that were parsed out of `section`. Values share its memory.
pub(super) fn collect(section: &Bytes, fields: &[Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len() + ROOM_FOR_MORE);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Malformed::Syntax("the name of a field"))?;
        let value = if field.value.is_empty() { Bytes::new() } else { section.slice_ref(field.value) };
        let value =
            HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::Syntax("the value of a field"))?;
        headers.try_append(name, value).map_err(|_| Malformed::TooLarge("the number of fields"))?;
    }
    Ok(headers)
}

impl From<httparse::Error> for Malformed {
    fn from(error: httparse::Error) -> Self {
        Self::Syntax(match error {
            httparse::Error::HeaderName => "the name of a field",
            httparse::Error::HeaderValue => "the value of a field",
            httparse::Error::Status => "the status line",
            httparse::Error::Version => "the version",
            httparse::Error::TooManyHeaders => return Self::TooLarge("the number of fields"),
            httparse::Error::NewLine | httparse::Error::Token => "the end of a line",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 512;

    fn read(bytes: &[u8]) -> Result<Option<Parts>, Malformed> {
        HeadReader::new(MOST).take(&mut BytesMut::from(bytes), HeaderMap::new)
    }

    #[test]
    fn a_head_is_read() {
        let head = read(b"HTTP/1.1 200 OK\r\nA: b\r\nEmpty:\r\na: c\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.version), (StatusCode::OK, Version::HTTP_11));
        assert_eq!(head.headers.get_all("a").iter().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(head.headers["empty"], "");
        assert!(head.extensions.is_empty());
    }

    #[test]
    fn an_unusual_phrase_is_kept() {
        let head = read(b"HTTP/1.0 404 Nobody Home\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.version, Version::HTTP_10);
        assert_eq!(head.extensions.get::<ReasonPhrase>().unwrap().as_bytes(), b"Nobody Home");
    }

    #[test]
    fn one_head_comes_after_the_other() {
        let mut received =
            BytesMut::from(&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody"[..]);
        let mut reader = HeadReader::new(MOST);
        assert_eq!(reader.take(&mut received, HeaderMap::new).unwrap().unwrap().status, 103);
        assert_eq!(reader.take(&mut received, HeaderMap::new).unwrap().unwrap().status, 200);
        assert_eq!(received, "body");
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for bytes in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/2",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        ] {
            assert!(matches!(read(bytes), Err(Malformed::Syntax(_))), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(MOST));
        assert!(matches!(read(long.as_bytes()), Err(Malformed::TooLarge(_))));
        assert!(matches!(read(&long.as_bytes()[..MOST]), Err(Malformed::TooLarge(_))));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:\r\n".repeat(MOST_FIELDS + 1));
        assert!(matches!(read(many.as_bytes()), Err(Malformed::TooLarge(_))));
        let enough = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:\r\n".repeat(MOST_FIELDS));
        assert_eq!(read(enough.as_bytes()).unwrap().unwrap().headers.len(), MOST_FIELDS);
    }

    proptest! {
        #[test]
        fn a_split_changes_nothing(
            beginning in "(HTTP/1\\.[01] [0-9]{3} [A-Za-z ]{0,9}\r\n)?",
            fields in vec("[a-c\0]{0,2} ?: ?[ -~]{0,5}(\r\n|\n|\r\n )", 0..4),
            end in "(\r\n)?[a-z]{0,3}",
            cuts in vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = [beginning, fields.concat(), end].concat().into_bytes();
            let mut whole = BytesMut::from(&bytes[..]);
            let expected = told(HeadReader::new(60).take(&mut whole, HeaderMap::new));
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut reader = HeadReader::new(60);
            let mut received = BytesMut::new();
            let mut given = 0;
            let mut result = Ok(None);
            for cut in cuts {
                received.extend_from_slice(&bytes[given..cut]);
                given = cut;
                result = told(reader.take(&mut received, HeaderMap::new));
                if result != Ok(None) {
                    break;
                }
            }
            // A head is refused as soon as it is known to be wrong, which may be for another of its faults.
            match (&result, &expected) {
                (Err(_), Err(_)) => {}
                _ => prop_assert_eq!(&result, &expected),
            }
            if result.is_ok() {
                received.extend_from_slice(&bytes[given..]);
                prop_assert_eq!(received, whole);
            }
        }
    }

    type Told = Result<Option<(StatusCode, Version, HeaderMap)>, Malformed>;

    fn told(result: Result<Option<Parts>, Malformed>) -> Told {
        result.map(|head| head.map(|parts| (parts.status, parts.version, parts.headers)))
    }
}
