//! The heads that most responses have.
//!
//! The parser looks for all that may be wrong with a head, and its fields are read once more when a map is made of them.
//! So a head of HTTP/1.1 whose phrase is the usual one, and whose lines are plainly sound, is read here. Any other is
//! left to the parser from its beginning: it alone says what is refused, and why.

use std::ops::Range;

use bytes::Bytes;
use http::response::{Parts, Response};
use http::{HeaderMap, StatusCode};

use super::super::classes::text;
use super::super::fields::Field;
use super::{MOST_FIELDS, ROOM_FOR_MORE};

/// So many fields have most responses, at most.
const USUAL_FIELDS: usize = 10;

/// Reads a head, which is whole. Its fields are put into what `spare` gives: a map that is empty, but may have memory.
pub(super) fn read(head: &Bytes, spare: impl FnOnce() -> HeaderMap) -> Option<Parts> {
    let status_line = line(head, 0)?;
    let (code, phrase) = head[status_line.clone()].strip_prefix(b"HTTP/1.1 ")?.split_first_chunk::<3>()?;
    let status = StatusCode::from_bytes(code).ok()?;
    if phrase.strip_prefix(b" ")? != status.canonical_reason()?.as_bytes() {
        return None;
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    parts.headers = spare();
    parts.headers.reserve(USUAL_FIELDS + ROOM_FOR_MORE);
    fields(head, behind(&status_line), &mut parts.headers)?;
    Some(parts)
}

/// Reads the fields from here on, to the end of the head.
fn fields(head: &Bytes, mut from: usize, headers: &mut HeaderMap) -> Option<()> {
    for _ in 0..=MOST_FIELDS {
        let line = line(head, from)?;
        from = behind(&line);
        if line.is_empty() {
            return (from == head.len()).then_some(());
        }
        Field::read(head, line)?.append(head, headers).ok()?;
    }
    None
}

/// The line that begins here, if it has no control characters and ends as it should.
fn line(head: &[u8], from: usize) -> Option<Range<usize>> {
    let rest = head.get(from..)?;
    let length = text(rest);
    rest[length..].starts_with(b"\r\n").then_some(from..from + length)
}

/// Where the next line begins.
fn behind(line: &Range<usize>) -> usize {
    line.end + b"\r\n".len()
}

#[cfg(test)]
mod tests {
    use hyper::ext::ReasonPhrase;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    #[test]
    fn most_heads_are_plain() {
        let head =
            Bytes::from_static(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nX-A: b\r\nx-a:\r\n\r\n");
        let parts = read(&head, HeaderMap::new).unwrap();
        assert_eq!((parts.status, parts.headers.len()), (StatusCode::NOT_FOUND, 3));
        assert_eq!(parts.headers["content-length"], "5");
    }

    proptest! {
        /// What is not plain is nobody's business here, but what is must be what the parser reads.
        #[test]
        fn the_parser_reads_the_same(
            line in prop::sample::select(vec![
                "HTTP/1.1 200 OK", "HTTP/1.1 200 ok", "HTTP/1.0 200 OK", "HTTP/1.1 099 ", "HTTP/1.1 200",
                "HTTP/1.1 404 Not Found", "HTTP/1.1 599 ", "HTTP/1.1 200 \u{e9}", "HTTP/1.1  200 OK",
            ]),
            fields in vec(prop_oneof![
                "[a-zA-Z-]{1,20}:[ \t]{0,2}[ -~\u{e9}]{0,20}[ \t]{0,2}\r\n",
                "(content-length|Date|SERVER|etag): [ -~]{0,9}\r\n",
                "[ -~\t\r\n\0\u{7f}]{0,4}\r\n",
            ], 0..6),
        ) {
            let head = Bytes::from([line, "\r\n", &fields.concat(), "\r\n"].concat());
            if let Some(plain) = read(&head, HeaderMap::new) {
                let parsed = parse(&head).unwrap();
                prop_assert_eq!(plain.status, parsed.status);
                prop_assert_eq!(plain.version, parsed.version);
                prop_assert_eq!(plain.headers, parsed.headers);
                prop_assert!(parsed.extensions.get::<ReasonPhrase>().is_none());
            }
        }
    }
}
