//! Bytes as text: `⏎` CR LF, `␊` LF, `␍` CR, `␉` TAB, `␀` NUL, `␠` space, `«0aff»` bytes in hexadecimal, `«5×…»` a text
//! five times. Anything else stands for itself, in UTF-8.

/// The bytes that a text stands for.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '⏎' => bytes.extend(b"\r\n"),
            '␊' => bytes.push(b'\n'),
            '␍' => bytes.push(b'\r'),
            '␉' => bytes.push(b'\t'),
            '␀' => bytes.push(0),
            '␠' => bytes.push(b' '),
            '«' => {
                let (inner, after) = enclosed(rest);
                rest = after;
                match inner.split_once('×') {
                    Some((times, what)) if times.bytes().all(|byte| byte.is_ascii_digit()) => {
                        bytes.extend(self::bytes(what).repeat(times.parse().unwrap()));
                    }
                    _ => bytes.extend(
                        inner
                            .as_bytes()
                            .chunks(2)
                            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()),
                    ),
                }
            }
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

/// What stands before the bracket that closes, and behind it.
fn enclosed(text: &str) -> (&str, &str) {
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '«' => depth += 1,
            '»' if depth == 1 => return (&text[..at], &text[at + '»'.len_utf8()..]),
            '»' => depth -= 1,
            _ => {}
        }
    }
    panic!("a bracket is open in {text}")
}

#[test]
fn a_text_stands_for_its_bytes() {
    assert_eq!(bytes("a⏎␊␍␉␀␠«00ff»«2×b⏎»"), b"a\r\n\n\r\t\0 \x00\xffb\r\nb\r\n");
    assert_eq!(bytes("«2×«2×a»b»"), b"aabaab");
}
