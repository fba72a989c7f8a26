//! What a head must be, as a table.

use super::super::hpack::Decoder;
use super::*;

const LIMITS: Limits = Limits { max_bytes: 1000, max_fields: 10 };

/// Reads a head that is written without any table.
fn read(fields: &[(&str, &str)], is_trailers: bool) -> Head {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.extend([0, u8::try_from(name.len()).unwrap()]);
        block.extend(name.bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    }
    let mut head = Head::new(LIMITS, HeaderMap::new(), is_trailers);
    Decoder::default().decode(&block, &mut head).unwrap();
    head
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/a?b"), (":authority", "shop.test")];

fn with(more: &[(&'static str, &'static str)]) -> Result<(Parts, Option<u64>), Rejected> {
    read(&[&GET[..], more].concat(), false).finish()
}

#[test]
fn a_head_becomes_a_request() {
    let Ok((parts, length)) = with(&[("accept", "*/*"), ("content-length", "7")]) else {
        panic!("it is sound")
    };
    assert_eq!(
        (parts.method, parts.uri.to_string(), parts.version),
        (Method::GET, "/a?b".into(), Version::HTTP_2)
    );
    assert_eq!(length, Some(7));
    assert_eq!(parts.headers[header::HOST], "shop.test");
    assert_eq!(parts.headers.len(), 3);
    // Without an authority the Host says it.
    let fields = [&GET[..3], &[("host", "other.test")]].concat();
    let Ok((parts, _)) = read(&fields, false).finish() else { panic!("it is sound") };
    assert_eq!(parts.headers[header::HOST], "other.test");
    assert!(with(&[("host", "SHOP.test"), ("te", "Trailers")]).is_ok());
    let connect = [(":method", "CONNECT"), (":authority", "a:1")];
    assert!(read(&connect, false).finish().is_ok());
}

#[test]
fn what_breaks_the_rules_has_no_answer() {
    for more in [
        &[("connection", "close")][..],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("te", "trailers, gzip")],
        &[("a", "b"), (":path", "/")],
        &[(":path", "/b")],
        &[(":method", "PUT")],
        &[(":scheme", "http")],
        &[(":authority", "shop.test")],
        &[(":status", "200")],
        &[(":protocol", "websocket")],
        &[("Accept", "a")],
        &[("", "a")],
        &[("a b", "a")],
        &[("a:", "a")],
        &[("a", " b")],
        &[("a", "b\t")],
        &[("a", "b\r\nc: d")],
        &[("a", "\0")],
        &[("content-length", "+5")],
        &[("content-length", "5, 5")],
        &[("content-length", "")],
        &[("content-length", "99999999999999999999")],
        &[("content-length", "5"), ("content-length", "5")],
        &[("host", "shop.test"), ("host", "shop.test")],
    ] {
        assert!(matches!(with(more), Err(Rejected::Malformed)), "{more:?}");
    }
    for (place, missing) in GET.iter().enumerate().take(3) {
        let mut fields = GET.to_vec();
        fields.remove(place);
        assert!(matches!(read(&fields, false).finish(), Err(Rejected::Malformed)), "without {missing:?}");
    }
    for path in ["", "a", "http://a/", "/a b", "/a#b", "/\r\n", "/\u{e9}"] {
        let fields = [GET[0], GET[1], (":path", path), GET[3]];
        assert!(matches!(read(&fields, false).finish(), Err(Rejected::Malformed)), "{path:?}");
    }
    for method in ["", "GET / HTTP/1.1\r\nX:", "GET?", "G T"] {
        let fields = [(":method", method), GET[1], GET[2], GET[3]];
        assert!(matches!(read(&fields, false).finish(), Err(Rejected::Malformed)), "{method:?}");
    }
    let connect = [(":method", "CONNECT"), (":path", "/"), (":scheme", "http"), (":authority", "a:1")];
    assert!(matches!(read(&connect, false).finish(), Err(Rejected::Malformed)));
}

#[test]
fn what_is_sound_and_not_served_has_an_answer() {
    let reason = |outcome| match outcome {
        Err(Rejected::Refused(failure)) => failure.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(with(&[("host", "other.test")])), Reason::BadRequest);
    for scheme in ["ftp", "http://evil/?", ""] {
        let fields = [GET[0], (":scheme", scheme), GET[2], GET[3]];
        assert_eq!(reason(read(&fields, false).finish()), Reason::BadRequest, "{scheme}");
    }
    let many: Vec<_> = std::iter::repeat_n(("cookie", "a"), 11).collect();
    assert_eq!(reason(with(&many)), Reason::HeadersTooLarge);
    assert!(with(&many[..10]).is_ok());
    let large = "x".repeat(110);
    let fields: Vec<_> = GET.into_iter().chain(std::iter::repeat_n(("a", large.as_str()), 9)).collect();
    assert_eq!(reason(read(&fields, false).finish()), Reason::HeadersTooLarge);
}

#[test]
fn trailers_are_fields_alone() {
    assert_eq!(read(&[("a", "b")], true).into_trailers().unwrap().len(), 1);
    for wrong in [(":path", "/"), (":status", "200"), ("connection", "a"), ("A", "b")] {
        assert!(read(&[wrong], true).into_trailers().is_none(), "{wrong:?}");
    }
    let many: Vec<_> = std::iter::repeat_n(("a", "b"), 20).collect();
    assert!(read(&many, true).into_trailers().is_none());
}
