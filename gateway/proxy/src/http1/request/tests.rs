//! The rows of the catalogue of hostile input that are about the head of a request. Each case bears its row's name.

use bytes::BytesMut;
use http::{HeaderMap, Version};
use proptest::prelude::*;

use super::{Delimited, HeadReader, Limits, Verdict};
use crate::error::Reason;

const LIMITS: Limits = Limits { max_bytes: 64 * 1024, max_fields: 100 };

/// What is asked of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Ordinary(Delimited),
    ToHyper,
    Http2,
    Partial,
    Refused(Reason),
}

use Want::{Http2, Ordinary, Partial, Refused, ToHyper};

const BAD: Want = Refused(Reason::BadRequest);
const LARGE: Want = Refused(Reason::HeadersTooLarge);

fn want_of(verdict: &Verdict) -> Want {
    match verdict {
        Verdict::Partial => Partial,
        Verdict::Ordinary(framing) => Ordinary(*framing),
        Verdict::ToHyper(_) => ToHyper,
        Verdict::Http2 => Http2,
        Verdict::Refused(failure) => Refused(failure.reason),
    }
}

fn read(bytes: &[u8]) -> Verdict {
    HeadReader::new(LIMITS).read(bytes)
}

/// Reads the bytes in pieces that end at the cuts, up to the first verdict.
fn read_in_pieces(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Verdict {
    let mut reader = HeadReader::new(LIMITS);
    for end in cuts.into_iter().chain([bytes.len()]) {
        let verdict = reader.read(&bytes[..end]);
        if !matches!(verdict, Verdict::Partial) {
            return verdict;
        }
    }
    Verdict::Partial
}

/// A head with this request line, and a valid Host.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: ok.test\r\n\r\n").into_bytes()
}

/// A head of a POST with a valid Host and these lines.
fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: ok.test\r\n{lines}\r\n\r\n").into_bytes()
}

/// A head of a GET without a Host, but with these lines.
fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n").into_bytes()
}

fn bytes(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

fn request_lines() -> Vec<(&'static str, Vec<u8>, Want)> {
    let none = Ordinary(Delimited::None);
    vec![
        ("A1", b"GET / HTTP/1.1\nHost: ok.test\n\n".to_vec(), BAD),
        ("A2", b"GET / HTTP/1.1\nHost: ok.test\r\n\r\n".to_vec(), BAD),
        ("A3", b"GET / HTTP/1.1\r\nHost: ok.test\r\n\n".to_vec(), BAD),
        ("A4", line("\r\nGET / HTTP/1.1"), none),
        ("A5", line(&format!("{}GET / HTTP/1.1", "\r\n".repeat(1000))), BAD),
        ("A6", b"GET / HTTP/1.1\rHost: ok.test\r\n\r\n".to_vec(), BAD),
        ("A7", line("GET  / HTTP/1.1"), BAD),
        ("A8", line("GET\t/ HTTP/1.1"), BAD),
        ("A9", line("GET / HTTP/1.1 "), BAD),
        ("A10", line("GET /a b HTTP/1.1"), BAD),
        ("A11", b"GET /\r\n".to_vec(), BAD),
        ("A12.1", line("GET / HTTP/1.2"), BAD),
        ("A12.2", line("GET / HTTP/1.10"), BAD),
        ("A12.3", line("GET / HTTP/01.1"), BAD),
        ("A12.4", line("GET / HTTP/1."), BAD),
        ("A12.5", line("GET / HTTP/4294967295.255"), BAD),
        ("A13.1", line("GET / http/1.1"), BAD),
        ("A13.2", line("GET / HTTP / 1.1"), BAD),
        ("A14", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Http2),
        ("A14.1", b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n".to_vec(), BAD),
        ("A14.2", b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), BAD),
        ("A15", b"\x16\x03\x01\x00\xfe\x01".to_vec(), BAD),
        ("A16.1", line("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1"), BAD),
        ("A16.2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec(), BAD),
        ("A18", line("GET /a#b HTTP/1.1"), BAD),
        ("A19", line("GET /a\0b HTTP/1.1"), BAD),
        ("A20.1", line("GET /a\x01b HTTP/1.1"), BAD),
        ("A20.2", line("GET /a\x7fb HTTP/1.1"), BAD),
        ("A21", line("GET /é HTTP/1.1"), BAD),
        ("A22", b"GET /\xff HTTP/1.1\r\nHost: ok.test\r\n\r\n".to_vec(), BAD),
        ("A23", line("GET /a\\..\\admin HTTP/1.1"), BAD),
        ("A24", line("GET /a\"{}|^ HTTP/1.1"), BAD),
        ("A25.1", line("GET /a<b HTTP/1.1"), BAD),
        ("A25.2", line("GET /a>b HTTP/1.1"), BAD),
        ("A25.3", line("GET /a`b HTTP/1.1"), BAD),
        ("A26", line(&format!("GET /{} HTTP/1.1", "a".repeat(8192))), Refused(Reason::TargetTooLong)),
        ("A27", line(&format!("GET /{} HTTP/1.1", "a".repeat(70_000))), Refused(Reason::TargetTooLong)),
        ("A28", line(&format!("{} / HTTP/1.1", "A".repeat(100_000))), BAD),
        ("A29.1", line("GE(T) / HTTP/1.1"), BAD),
        ("A29.2", line("G=\"x\" / HTTP/1.1"), BAD),
        ("A30", line("get / HTTP/1.1"), ToHyper),
        ("A31", line("GET * HTTP/1.1"), ToHyper),
        ("A32", line("OPTIONS * HTTP/1.1"), ToHyper),
        ("A33", line("GET admin HTTP/1.1"), ToHyper),
        ("A36", line("CONNECT ok.test:443 HTTP/1.1"), ToHyper),
        ("A39", line("GET http://a.test/x HTTP/1.1"), ToHyper),
        ("A46", line("GET //evil.test/x HTTP/1.1"), none),
        ("A48", vec![0xfe; 64 * 1024], BAD),
        ("no byte", Vec::new(), Partial),
        ("not all", b"GET / HTTP/1.1\r\nHost: ok.test\r\n".to_vec(), Partial),
        ("a query with brackets", line("GET /a?b[c]=d&e=%20 HTTP/1.1"), none),
        ("HTTP/1.0", line("GET / HTTP/1.0"), ToHyper),
    ]
}

fn hosts_and_fields() -> Vec<(&'static str, Vec<u8>, Want)> {
    let none = Ordinary(Delimited::None);
    vec![
        ("B1", b"GET / HTTP/1.1\r\n\r\n".to_vec(), BAD),
        ("B2", get("Host: ok.test\r\nHost: ok.test"), BAD),
        ("B3", get("Host: ok.test\r\nHost: b.test"), BAD),
        ("B17", b"GET / HTTP/1.0\r\n\r\n".to_vec(), ToHyper),
        ("C1.1", post("Name : v"), BAD),
        ("C1.2", post("Name\t: v"), BAD),
        ("C2", post("X: a\r\n b"), BAD),
        ("C3", get(" Host: ok.test"), BAD),
        ("C4", post("nocolon"), BAD),
        ("C5", post(": v"), BAD),
        ("C6.1", post("[x]: v"), BAD),
        ("C6.2", post("x(y): v"), BAD),
        ("C6.3", post("\"x\": v"), BAD),
        ("C7.1", post("X: a\0b"), BAD),
        ("C7.2", post("X\0: a"), BAD),
        ("C8", post("X: a\rb"), BAD),
        ("C9", post("X: a\nEvil: b"), BAD),
        ("C10.1", post("X: a\x01b"), BAD),
        ("C10.2", post("X: a\x7fb"), BAD),
        ("C11", bytes(&[b"GET / HTTP/1.1\r\nHost: ok.test\r\nX: a\x80\xff\r\n\r\n"]), none),
        ("C12", bytes(&[b"GET / HTTP/1.1\r\nHost: ok.test\r\nX\xe9: a\r\n\r\n"]), BAD),
        ("C13", post(&["X: a"; 100].join("\r\n")), LARGE),
        ("99 and Host", post(&["X: a"; 99].join("\r\n")), none),
        ("C14", post(&[format!("X: {}", "a".repeat(760)).as_str(); 90].join("\r\n")), LARGE),
        ("C15.1", post(&format!("X: {}", "a".repeat(100_000))), LARGE),
        ("C15.2", post(&format!("{}: v", "a".repeat(100_000))), LARGE),
        ("C16", post("Connection: close, X-Real-IP, X-Forwarded-Proto"), ToHyper),
        ("C17.1", post("Connection: Host"), BAD),
        ("C17.2", post("Content-Length: 1\r\nConnection: Content-Length"), BAD),
        ("C17.3", post("Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding"), BAD),
        ("C19", post(&format!("Connection: {}b", "a, ".repeat(1000))), BAD),
        ("C19 in lines", post(&["Connection: a, b"; 51].join("\r\n")), BAD),
        ("C25.1", post("Transfer_Encoding: chunked"), BAD),
        ("C25.2", post("Content_Length: 5"), BAD),
        ("C26", post(&format!("Cookie: {}", "a".repeat(65_536))), LARGE),
        ("C27", post("Authorization: a\r\nAuthorization: b"), BAD),
        ("C33", post("User-Agent: \x1b[31m"), BAD),
        ("C37", line("TRACE / HTTP/1.1\r\nCookie: secret"), Refused(Reason::MethodNotAllowed)),
        ("TRACE alone", line("TRACE / HTTP/1.1"), ToHyper),
        ("Connection: close", post("Connection: close"), none),
        ("G8", post("Expect: 200-ok\r\nContent-Length: 5"), ToHyper),
        ("G14", post("Upgrade: websocket"), ToHyper),
    ]
}

fn framings() -> Vec<(&'static str, Vec<u8>, Want)> {
    let five = Ordinary(Delimited::Length(5));
    let chunked = Ordinary(Delimited::Chunked);
    let unknown = Refused(Reason::UnknownTransferCoding);
    let mut cases = vec![
        ("D8", post("Content-Length: 5\r\nContent-Length: 5"), BAD),
        ("D9", post("Content-Length: 5\r\nContent-Length: 6"), BAD),
        ("D10", post("Content-Length:\r\nContent-Length: 43"), BAD),
        ("D20", line("TRACE / HTTP/1.1\r\nContent-Length: 5"), BAD),
        ("E1", post("Content-Length: 6\r\nTransfer-Encoding: chunked"), BAD),
        ("E2", post("Transfer-Encoding: chunked\r\nContent-Length: 6"), BAD),
        ("E9", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), BAD),
        ("E10", post("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"), BAD),
        ("E16", bytes(&[b"POST / HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\xa0\r\n\r\n"]), BAD),
        ("E19", line("POST / HTTP/1.0\r\nTransfer-Encoding: chunked"), BAD),
        ("E20.1", post("Transfer-Encoding : chunked"), BAD),
        ("E20.2", post("Transfer-Encoding:\r\n chunked"), BAD),
        ("E20.3", post("Transfer Encoding: chunked"), BAD),
        ("E21", post("X: x\rTransfer-Encoding: chunked"), BAD),
        ("E22", post("Content-Length: 5\r\nX: x\nTransfer-Encoding: chunked"), BAD),
        ("E23", post("Content-Encoding: chunked\r\nContent-Length: 5"), five),
    ];
    let lengths = [
        ("D1", "+5", BAD),
        ("D2", "-0", BAD),
        ("D3.1", "0x5", BAD),
        ("D3.2", "5_0", BAD),
        ("D3.3", "1e1", BAD),
        ("D3.5", "5Z", BAD),
        ("D4", "5 5", BAD),
        ("D5", "", BAD),
        ("D6", "5, 5", BAD),
        ("D7", "5, 6", BAD),
        ("D11.1", "9223372036854775808", BAD),
        ("D11.2", "18446744073709551616", BAD),
        ("D11.3", "18446744073709551615", BAD),
        ("D11.4", "1111111111111111111111111111111111111111", BAD),
        ("D12", "00005", BAD),
        ("D13", "\t5 ", five),
        ("D14", "٥", BAD),
        ("0", "0", Ordinary(Delimited::None)),
        ("2^63 - 1", "9223372036854775807", Ordinary(Delimited::Length(i64::MAX as u64))),
    ];
    cases.extend(lengths.map(|(row, value, want)| (row, post(&format!("Content-Length: {value}")), want)));
    let codings = [
        ("E3.1", "xchunked", BAD),
        ("E4", "chunked, identity", BAD),
        ("E5", "identity", BAD),
        ("E6", "identity, chunked", unknown),
        ("E7", "gzip, chunked", unknown),
        ("E8", "chunked, chunked", BAD),
        ("E12", ",chunked", BAD),
        ("E13", "chunked,", BAD),
        ("E14", "\"chunked\"", BAD),
        ("E15", "chunked;q=1", BAD),
        ("E16", "\x0bchunked", BAD),
        ("E17", "", BAD),
        ("E18", "cHuNkEd", chunked),
    ];
    cases.extend(codings.map(|(row, value, want)| (row, post(&format!("Transfer-Encoding: {value}")), want)));
    cases
}

fn cases() -> Vec<(&'static str, Vec<u8>, Want)> {
    [request_lines(), hosts_and_fields(), framings()].concat()
}

#[test]
fn each_row_gets_its_verdict() {
    for (row, bytes, want) in cases() {
        assert_eq!(want_of(&read(&bytes)), want, "{row}");
    }
}

#[test]
fn bytes_one_by_one_get_the_same_verdict() {
    for (row, bytes, want) in cases() {
        assert_eq!(want_of(&read_in_pieces(&bytes, 1..bytes.len())), want, "{row}");
    }
}

#[test]
fn an_ordinary_head_is_taken_off_and_the_body_left() {
    let lines = "X-A: \t1 2 \r\nx-a:3\r\nEmpty: \r\nContent-Length: 5\r\n\r\nhello";
    let mut rest = BytesMut::from(format!("\r\nPOST /a?b HTTP/1.1\r\nHost: ok.test\r\n{lines}").as_bytes());
    let mut reader = HeadReader::new(LIMITS);
    assert_eq!(want_of(&reader.read(&rest)), Ordinary(Delimited::Length(5)));
    assert_eq!(reader.length(), rest.len() - "hello".len());
    let parts = reader.take(&mut rest, HeaderMap::new()).unwrap();
    assert_eq!(&rest[..], b"hello");
    assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/a?b"));
    assert_eq!(parts.version, Version::HTTP_11);
    let values: Vec<_> = parts.headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1 2", "3"]);
    assert_eq!((&parts.headers["empty"], parts.headers.len()), (&http::HeaderValue::from_static(""), 5));
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    let head = line("GET / HTTP/1.1");
    for (max_bytes, want) in [(head.len(), Ordinary(Delimited::None)), (head.len() - 1, LARGE)] {
        let mut reader = HeadReader::new(Limits { max_bytes, ..LIMITS });
        assert_eq!(want_of(&reader.read(&head)), want);
    }
}

/// Heads of pieces that matter to the reader, sound or not.
fn a_head() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET",
        "POST",
        " ",
        "/",
        "HTTP/1.1",
        "HTTP/1.0",
        "\r\n",
        "\r",
        "\n",
        "Host: ok.test",
        "X:",
        "a",
        ":",
        "\t",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "\0",
        "é",
        "GET / HTTP/1.1\r\n",
        "Host: ok.test\r\n\r\n",
    ]);
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn every_cut_gives_the_same_verdict(head in a_head(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(head.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(want_of(&read_in_pieces(&head, cuts)), want_of(&read(&head)));
    }

    /// There is no second parser behind the reader; beside it there is one.
    #[test]
    fn what_is_taken_another_parser_reads_the_same(
        lines in prop::collection::vec("[a-zA-Z-]{1,12}:[ \t]{0,2}[ -~\t\u{e9}]{0,12}[ \t]{0,2}\r\n", 0..5),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut head = format!("POST /a?b=c HTTP/1.1\r\nHost: ok.test\r\n{}\r\n", lines.concat()).into_bytes();
        for (place, byte) in changes {
            let place = place.index(head.len());
            head[place] = byte;
        }
        let mut buffer = BytesMut::from(&head[..]);
        let mut reader = HeadReader::new(LIMITS);
        if let Want::Ordinary(_) | Want::ToHyper = want_of(&reader.read(&buffer)) {
            let length = reader.length();
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut other = httparse::Request::new(&mut fields);
            prop_assert_eq!(other.parse(&head), Ok(httparse::Status::Complete(length)));
            // An authority or `*` in the target is read by whoever it is left to.
            if other.path.is_some_and(|path| path.starts_with('/')) {
                let parts = reader.take(&mut buffer, HeaderMap::new()).unwrap();
                prop_assert_eq!(Some(parts.method.as_str()), other.method);
                let target = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
                prop_assert_eq!(target, other.path);
                let mut theirs = HeaderMap::new();
                for field in other.headers.iter() {
                    let name = http::HeaderName::from_bytes(field.name.as_bytes()).unwrap();
                    theirs.append(name, http::HeaderValue::from_bytes(field.value).unwrap());
                }
                prop_assert_eq!(parts.headers, theirs);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read(&bytes));
    }
}
