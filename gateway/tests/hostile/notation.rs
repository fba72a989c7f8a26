//! What is sent, as text: `⏎` CR LF, `␊` LF, `␍` CR, `␉` TAB, `␀` NUL, `␠` space, `«0aff»` bytes in hexadecimal,
//! `«5×…»` a text five times. Anything else stands for itself, in UTF-8. Between the bytes there may be other steps:
//! `⟨300 ms⟩` waits, `⟨answer⟩` waits until something has come back, `⟨fin⟩` closes the own direction, `⟨reset⟩` resets the
//! connection, `⟨read⟩` reads the body of the request first, `⟨silent⟩` does nothing more until the other side ends.

use std::time::Duration;

/// One step of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Bytes(Vec<u8>),
    Wait(Duration),
    Answer,
    Fin,
    Reset,
    Read,
    Silent,
}

/// The steps that a text stands for; bytes that stand together are one.
pub(crate) fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (number, part) in text.split('⟨').enumerate() {
        let text = match part.split_once('⟩') {
            Some((step, text)) if number > 0 => {
                steps.push(one(step));
                text
            }
            _ => part,
        };
        if !text.is_empty() {
            steps.push(Step::Bytes(bytes(text)));
        }
    }
    steps
}

fn one(step: &str) -> Step {
    match step {
        "answer" => Step::Answer,
        "fin" => Step::Fin,
        "reset" => Step::Reset,
        "read" => Step::Read,
        "silent" => Step::Silent,
        _ => {
            let time = step.strip_suffix(" ms").and_then(|time| time.parse().ok());
            Step::Wait(Duration::from_millis(time.unwrap_or_else(|| panic!("no step: {step}"))))
        }
    }
}

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
                bytes.extend(special(inner));
            }
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

/// What stands between the brackets.
fn special(inner: &str) -> Vec<u8> {
    match inner.split_once('×') {
        Some((times, what)) if times.bytes().all(|byte| byte.is_ascii_digit()) => {
            bytes(what).repeat(times.parse().unwrap())
        }
        _ => {
            let pairs = inner.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
        }
    }
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
fn a_text_stands_for_its_bytes_and_steps() {
    assert_eq!(bytes("a⏎␊␍␉␀␠«00ff»«2×b⏎»"), b"a\r\n\n\r\t\0 \x00\xffb\r\nb\r\n");
    assert_eq!(bytes("«2×«2×a»b»"), b"aabaab");
    let wait = Step::Wait(Duration::from_millis(20));
    assert_eq!(
        steps("a⟨20 ms⟩b⟨fin⟩"),
        [Step::Bytes(b"a".into()), wait, Step::Bytes(b"b".into()), Step::Fin]
    );
}
