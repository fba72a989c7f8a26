//! What is written is read again, by our own decoder, and says what was meant.

use http::header;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::field::{Field, Name, Value};
use super::super::{Decoder, Sink};
use super::*;

#[derive(Default)]
struct Taken(Vec<(String, Vec<u8>)>);

impl Sink for Taken {
    fn admits(&mut self, _length: usize) -> bool {
        true
    }

    fn take(&mut self, field: Field) {
        match (field.name, field.value) {
            (Name::Regular(name, _), Value::Text(value)) => {
                self.0.push((name.to_string(), value.as_bytes().to_vec()));
            }
            // `:status`, which our decoder has no use for.
            (Name::Unfit, _) => self.0.push((":status".to_owned(), Vec::new())),
            other => panic!("{other:?}"),
        }
    }
}

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value);
    }
    headers
}

fn written(encoder: &mut Encoder, status: u16, headers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.head(StatusCode::from_u16(status).unwrap(), headers, &Lacking::default(), &mut out);
    out
}

#[test]
fn what_is_said_again_and_again_is_one_byte() {
    let mut encoder = Encoder::default();
    let headers = map(&[("content-type", "text/plain"), ("x-a", "b")]);
    assert_eq!(
        written(&mut encoder, 200, &headers),
        [&[0x88, 0x0f, 0x10, 10][..], b"text/plain", &[0x00, 3], b"x-a", &[1], b"b"].concat()
    );
    assert_eq!(
        written(&mut encoder, 200, &headers),
        [&[0x88, 0x5f, 10][..], b"text/plain", &[0x40, 3], b"x-a", &[1], b"b"].concat()
    );
    assert_eq!(written(&mut encoder, 404, &headers), [0x8d, 0xbf, 0xbe]);
    // Another value is said in full, and what was said before is still known.
    let other = map(&[("x-a", "c")]);
    assert_eq!(written(&mut encoder, 299, &other)[..5], [0x08, 3, b'2', b'9', b'9']);
    assert_eq!(written(&mut encoder, 200, &headers), [0x88, 0xbf, 0xbe]);
    encoder.release();
    assert!(written(&mut encoder, 200, &headers).len() > 10, "it was forgotten");
}

#[test]
fn what_a_head_lacks_is_said() {
    let lacking = Lacking { date: Some(HeaderValue::from_static("now")), length: Some(7) };
    let mut out = Vec::new();
    Encoder::default().head(StatusCode::OK, &map(&[]), &lacking, &mut out);
    assert_eq!(out, [&[0x88, 0x0f, 13, 1, b'7', 0x0f, 18, 3][..], b"now"].concat());
    out.clear();
    let headers = map(&[("content-length", "8"), ("date", "then")]);
    Encoder::default().head(StatusCode::OK, &headers, &lacking, &mut out);
    assert_eq!(out, [&[0x88, 0x0f, 13, 1, b'8', 0x0f, 18, 4][..], b"then"].concat());
}

#[test]
fn secrets_are_never_kept() {
    let mut encoder = Encoder::default();
    let headers = map(&[("set-cookie", "a=1")]);
    for _ in 0..4 {
        assert_eq!(written(&mut encoder, 200, &headers), [&[0x88, 0x1f, 40, 3][..], b"a=1"].concat());
    }
}

#[test]
fn a_smaller_table_is_announced_and_kept_to() {
    let mut encoder = Encoder::default();
    let headers = map(&[("x-a", "b")]);
    for _ in 0..3 {
        written(&mut encoder, 200, &headers);
    }
    encoder.resize(0);
    encoder.resize(100);
    let out = written(&mut encoder, 200, &headers);
    assert_eq!(out[..4], [0x20, 0x3f, 69, 0x88], "the smallest, then the last");
    assert!(!out.contains(&0xbe), "what was in the table is gone");
    encoder.resize(1 << 20);
    assert_eq!(written(&mut encoder, 200, &headers)[..4], [0x3f, 0xe1, 0x1f, 0x88]);
}

const NAMES: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::SERVER,
    header::DATE,
    header::VIA,
    header::ETAG,
    header::SET_COOKIE,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-a"),
];

proptest! {
    #[test]
    fn every_head_is_read_as_it_was_meant(
        heads in vec((vec((0..NAMES.len(), 0..4usize, 0..300usize), 0..12), 0..40usize), 1..60),
    ) {
        let mut encoder = Encoder::default();
        let mut decoder = Decoder::default();
        for (fields, event) in heads {
            match event {
                0 => encoder.resize(0),
                1 => encoder.resize(200),
                2 => encoder.resize(4096),
                3 => encoder.release(),
                _ => {}
            }
            let mut headers = HeaderMap::new();
            for (name, value, length) in fields {
                let value = format!("{value}{}", "x".repeat(if value == 3 { length } else { value }));
                headers.append(NAMES[name].clone(), value.parse().unwrap());
            }
            let block = written(&mut encoder, 200, &headers);
            let mut taken = Taken::default();
            decoder.decode(&block, &mut taken).unwrap();
            let meant = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let meant: Vec<_> = std::iter::once((":status".to_owned(), Vec::new())).chain(meant).collect();
            prop_assert_eq!(taken.0, meant);
        }
    }
}
