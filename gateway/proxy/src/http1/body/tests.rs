use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What a body came to: its data, its trailers if it ended, and the bytes left over.
type Read = Result<(Vec<u8>, Option<Vec<String>>, Vec<u8>), Malformed>;

/// Reads a body that comes in these parts.
fn read(framing: Framing, parts: &[&[u8]]) -> Read {
    let mut reader = BodyReader::new(framing);
    let mut received = BytesMut::new();
    let mut data = Vec::new();
    let mut ended = None;
    for part in parts {
        received.extend_from_slice(part);
        while ended.is_none()
            && let Some(piece) = reader.take(&mut received)?
        {
            match piece {
                Piece::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    data.extend_from_slice(&bytes);
                }
                Piece::End(trailers) => {
                    assert!(reader.is_ended());
                    let trailers = trailers.unwrap_or_default();
                    ended = Some(trailers.iter().map(|field| format!("{field:?}")).collect());
                }
            }
        }
    }
    Ok((data, ended, received.to_vec()))
}

fn chunked(bytes: &[u8]) -> Read {
    read(Framing::Chunked, &[bytes])
}

fn whole(data: &str, left: &str) -> Read {
    Ok((data.into(), Some(Vec::new()), left.into()))
}

#[test]
fn a_body_of_known_length_ends_there() {
    assert_eq!(read(Framing::Length(5), &[b"hel", b"lo", b"more"]), whole("hello", "more"));
    assert_eq!(read(Framing::Length(0), &[b"more"]), whole("", "more"));
    let mut reader = BodyReader::new(Framing::Length(5));
    reader.take(&mut BytesMut::from("hel")).unwrap();
    assert_eq!(reader.remaining(), Some(2));
    assert_eq!(reader.close(), Err(Malformed::Truncated));
    reader.take(&mut BytesMut::from("lo")).unwrap();
    // Known with the last byte, so that its connection is free for the next request at once.
    assert!(reader.is_ended());
}

#[test]
fn a_body_until_the_close_ends_with_the_connection() {
    let mut reader = BodyReader::new(Framing::UntilClose);
    assert_eq!(reader.take(&mut BytesMut::from("a")), Ok(Some(Piece::Data("a".into()))));
    assert_eq!(reader.take(&mut BytesMut::new()), Ok(None));
    assert_eq!(reader.close(), Ok(()));
    assert!(reader.is_ended());
}

#[test]
fn chunks_are_joined() {
    assert_eq!(chunked(b"5\r\nhello\r\n0\r\n\r\nmore"), whole("hello", "more"));
    assert_eq!(chunked(b"00A\r\n0123456789\r\n1\r\na\r\n00\r\n\r\n"), whole("0123456789a", ""));
    assert_eq!(chunked(b"5\r\nhello\r\n0\r\n"), Ok((b"hello".to_vec(), None, Vec::new())));
    assert_eq!(BodyReader::new(Framing::Chunked).close(), Err(Malformed::Truncated));
}

#[test]
fn extensions_are_read_past() {
    for extension in ["a", "a=b", " a ; b", "a=\"x;\\\"\"", "a=\"\";b"] {
        let body = format!("5;{extension}\r\nhello\r\n0;{extension}\r\n\r\n");
        assert_eq!(chunked(body.as_bytes()), whole("hello", ""), "{extension}");
    }
}

#[test]
fn trailers_are_kept() {
    let (_, trailers, left) = chunked(b"0\r\nA: b\r\nc: d\r\n\r\nmore").unwrap();
    assert_eq!(trailers.unwrap(), [r#"("a", "b")"#, r#"("c", "d")"#]);
    assert_eq!(left, b"more");
}

#[test]
fn what_is_not_the_chunked_coding_is_refused() {
    for body in [
        &b"\r\n"[..],
        b"x\r\n",
        b"-5\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"5\t\r\n",
        b"5 ;a\r\n",
        b"5\nhello",
        b"5\rhello",
        b"5;\r\n",
        b"5; \r\n",
        b"5;a;\r\n",
        b"5;;a\r\n",
        b"5;=a\r\n",
        b"5;a=\"\r\n",
        b"5;a=\"\\\r\n",
        b"5;a\0\r\n",
        b"5;a\x7f\r\n",
        b"5;a\n",
        b"5;a\rb",
        b"5\r\nhelloX",
        b"5\r\nhello\n",
        b"5\r\nhello\rX",
        b"0\r\n\n",
        b"0\r\na: b\n\r\n",
        b"0\r\na : b\r\n\r\n",
        b"0\r\na: b\r\n c\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\na: \0\r\n\r\n",
    ] {
        assert!(matches!(chunked(body), Err(Malformed::Syntax(_))), "{}", body.escape_ascii());
    }
}

/// Who asks again, with whatever bytes, is told the same.
#[test]
fn what_was_refused_stays_refused() {
    for malformed in ["0\r\na: b\r\nc : d\r\n\r\n", "0\r\na: b\r\nc\n", "3 \r\nabc"] {
        let mut reader = BodyReader::new(Framing::Chunked);
        let refused = reader.take(&mut BytesMut::from(malformed)).unwrap_err();
        assert_eq!(reader.take(&mut BytesMut::new()), Err(refused));
        assert_eq!(reader.take(&mut BytesMut::from("0\r\n\r\n")), Err(refused));
        assert_eq!((reader.close(), reader.is_ended()), (Err(refused), false));
    }
}

#[test]
fn everything_but_the_data_is_bounded() {
    let refused = |body: String| matches!(chunked(body.as_bytes()), Err(Malformed::TooLarge(_)));
    assert!(refused(format!("{}5\r\n", "0".repeat(16))));
    assert!(refused("10000000000000000\r\n".to_owned()));
    assert!(refused(format!("5;{}", "a".repeat(20_000))));
    assert!(refused("1;aaaaaaaaa\r\nx\r\n".repeat(2_000)));
    assert!(refused(format!("0\r\na: {}", "a".repeat(20_000))));
    assert!(refused(format!("0\r\n{}\r\n", "a:\r\n".repeat(101))));
    // The largest size of all is one to count down from, and no more.
    assert_eq!(chunked(b"ffffffffffffffff\r\nhello"), Ok((b"hello".to_vec(), None, Vec::new())));
}

/// Chunks, most of them right.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let chunk = ("0{0,2}", "[a-z]{1,20}", "(;a(=\"[;b]\")?)?", "(\r\n|\r\n|\r\n|\n|\r|)").prop_map(
        |(zeros, data, extension, end)| format!("{zeros}{:x}{extension}\r\n{data}{end}", data.len()),
    );
    (vec(chunk, 0..5), "0\r\n([a-c]{1,3}: [a-z]{0,3}(\r\n|\r\n|\n)){0,3}\r\n[a-z]{0,4}")
        .prop_map(|(chunks, end)| [chunks.concat(), end].concat().into_bytes())
}

proptest! {
    #[test]
    fn a_split_changes_nothing(
        bytes in body(),
        length in 0..60u64,
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let parts: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let single: Vec<_> = bytes.chunks(1).collect();
        for framing in [Framing::Chunked, Framing::Length(length), Framing::UntilClose] {
            let expected = read(framing, &[&bytes]);
            prop_assert_eq!(&read(framing, &parts), &expected);
            prop_assert_eq!(&read(framing, &single), &expected);
        }
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..40)) {
        for framing in [Framing::Chunked, Framing::Length(20), Framing::UntilClose] {
            drop(read(framing, &[&bytes]));
        }
    }

    /// Who lets a body pass finds the same end, or as well none, as who takes it apart.
    #[test]
    fn passing_and_taking_agree(
        bytes in prop_oneof![body(), vec(prop_oneof![Just(b'0'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..20)],
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let bytes = [&bytes[..], b"next"].concat();
        let expected = chunked(&bytes).map(|(_, ended, left)| ended.map(|_| bytes.len() - left.len()));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut chunked = Chunked::new();
        let (mut passed, mut found) = (0, Ok(None));
        for cut in cuts {
            while cut > passed && found == Ok(None) {
                match chunked.pass(&bytes[passed..cut]) {
                    Ok((0, false)) => break,
                    Ok((length, ended)) => {
                        passed += length;
                        found = Ok(ended.then_some(passed));
                    }
                    Err(malformed) => found = Err(malformed),
                }
            }
        }
        prop_assert_eq!(found.map_err(|_| ()), expected.map_err(|_| ()));
    }
}
