//! Row E26: fields that one server takes for `Transfer-Encoding: chunked` and another does not, beside a
//! `Content-Length` that says something else. Any outcome is safe but one: that a request arrives which nobody sent, or
//! that two readers of what arrived see different requests.

use crate::case::Case;
use crate::notation::Step;

/// `@` stands for a byte, which is each of the 256 there are.
const AROUND_A_BYTE: [(&str, &str); 10] = [
    ("before the value", "Transfer-Encoding:@chunked"),
    ("behind the name", "Transfer-Encoding@: chunked"),
    ("before the name", "@Transfer-Encoding: chunked"),
    ("behind the value", "Transfer-Encoding: chunked@"),
    ("before a hidden field", "X: X@Transfer-Encoding: chunked"),
    ("before another field", "Transfer-Encoding: chunked@X: X"),
    ("between CR and a hidden field", "X: X\r@Transfer-Encoding: chunked"),
    ("before LF and a hidden field", "X: X@\nTransfer-Encoding: chunked"),
    ("in the name", "Transfer@Encoding: chunked"),
    ("in the value", "Transfer-Encoding: chun@ked"),
];

const NAMED: [&str; 26] = [
    "Transfer-Encoding: chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding\t:\tchunked",
    "Transfer Encoding: chunked",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:  chunked",
    "Transfer-Encoding: chunked, cow",
    "Transfer-Encoding: cow, chunked",
    "Content-Encoding: chunked",
    "Transfer-Encoding:\n chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunk",
    "TrAnSFer-EnCODinG: cHuNkeD",
    "TRANSFER-ENCODING: CHUNKED",
    "Transfer-Encoding: chunked\r",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: identity, chunked, identity",
    "Transfer-Encoding: ch\u{96}nked",
    "Transf\u{82}r-Encoding: chunked",
    "Transfer-Encoding: chunked;q=1",
    "X: X\rTransfer-Encoding: chunked",
    "X: X\nTransfer-Encoding: chunked",
];

/// What a server must not take for a request of its own.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: ok.test\r\n\r\n";

pub(crate) fn cases() -> Vec<Case> {
    let around = AROUND_A_BYTE.iter().flat_map(|(what, pattern)| {
        (0..=u8::MAX).map(move |byte| {
            let (before, after) = pattern.split_once('@').expect("the pattern has a place for a byte");
            (format!("{byte:#04x} {what}"), [before.as_bytes(), &[byte], after.as_bytes()].concat())
        })
    });
    let doubles = NAMED.iter().flat_map(|one| {
        NAMED
            .iter()
            .map(move |other| (format!("{one:?} and {other:?}"), latin1(&format!("{one}\r\n{other}"))))
    });
    let singles = NAMED.iter().map(|one| (format!("{one:?}"), latin1(one)));
    let all = around.chain(singles).chain(doubles);
    all.flat_map(|(what, field)| [by_length(&what, &field), by_chunks(&what, &field)]).collect()
}

/// Content-Length has all of the body; the chunks end before the hidden request.
fn by_length(what: &str, field: &[u8]) -> Case {
    let body = format!("0\r\n\r\n{HIDDEN}");
    case(what, "Content-Length is longer", field, body.len(), &body)
}

/// The chunks have all of the body; Content-Length ends before the hidden request.
fn by_chunks(what: &str, field: &[u8]) -> Case {
    let size = format!("{:x}\r\n", HIDDEN.len());
    case(what, "Content-Length is shorter", field, size.len(), &format!("{size}{HIDDEN}\r\n0\r\n\r\n"))
}

fn case(what: &str, which: &str, field: &[u8], length: usize, body: &str) -> Case {
    let head = format!("POST /mutation HTTP/1.1\r\nHost: ok.test\r\nContent-Length: {length}\r\n");
    let bytes = [head.as_bytes(), field, b"\r\n\r\n", body.as_bytes()].concat();
    let mut case = Case::new("E26", "SAFE", &format!("{what}, {which}"), vec![Step::Bytes(bytes)]);
    case.whole_only = true;
    case
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).expect("Latin-1")).collect()
}
