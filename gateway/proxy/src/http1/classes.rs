//! Which bytes may stand where in a head, told for many of them at a time.

use std::ops::Not as _;

/// What is asked of a byte by its class.
const TOKEN: u8 = 1;
const TARGET: u8 = 2;

/// The classes of each byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = b'0';
    while byte <= b'z' {
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] = TOKEN | TARGET;
        }
        byte += 1;
    }
    let classes = with(classes, b"!#$%&'*+-.^_`|~", TOKEN);
    with(classes, b"-._~:/?[]@!$&'()*+,;=%", TARGET)
};

/// One bit of a word for each byte of it: the lowest, and the highest.
const LOWEST: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = 0x8080_8080_8080_8080;

/// Whether all bytes may stand in a token: a method, or the name of a field (RFC 9110 section 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    all(bytes, TOKEN)
}

/// Whether all bytes may stand in a request target (RFC 3986 section 2, without the `#` of a fragment). Brackets are let
/// through in every place, because queries have them.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    all(bytes, TARGET)
}

/// How many bytes at the beginning may stand in a token.
pub(super) fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| CLASSES[usize::from(**byte)] & TOKEN != 0).count()
}

/// How many bytes at the beginning are no control characters.
pub(super) fn text(bytes: &[u8]) -> usize {
    let controls = |word| below_space(word) | zeros(word ^ (LOWEST * 0x7f));
    first(bytes, controls, |byte| byte.is_ascii_control()).unwrap_or(bytes.len())
}

/// Where the first colon is. Names are too short for a search that has to choose its instructions first.
pub(super) fn colon(bytes: &[u8]) -> Option<usize> {
    const COLONS: u64 = LOWEST * b':' as u64;
    first(bytes, |word| zeros(word ^ COLONS), |byte| byte == b':')
}

/// The letters of a word in lower case, and its other bytes as they are.
pub(super) fn lower_case(word: u64) -> u64 {
    // Without the highest bits, so that no sum reaches into the next byte.
    let low = word & !HIGHEST;
    let from_a = low + LOWEST * u64::from(0x80 - b'A');
    let beyond_z = low + LOWEST * u64::from(0x7f - b'Z');
    let upper = from_a & !beyond_z & !word & HIGHEST;
    word | upper >> 2
}

const fn with(mut classes: [u8; 256], bytes: &[u8], class: u8) -> [u8; 256] {
    let mut at = 0;
    while at < bytes.len() {
        classes[bytes[at] as usize] |= class;
        at += 1;
    }
    classes
}

/// To the end whatever comes, which takes fewer instructions than a look at each byte's answer.
fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |all, byte| all & CLASSES[usize::from(*byte)]) != 0
}

/// The first byte that is meant. `in_word` sets the highest bit of each byte of a word that is; above the first of them
/// it may set others.
#[inline]
fn first(bytes: &[u8], in_word: impl Fn(u64) -> u64, is_meant: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, rest) = bytes.as_chunks();
    for (before, word) in words.iter().enumerate() {
        let found = in_word(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(before * size_of::<u64>() + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| is_meant(*byte)).map(|at| bytes.len() - rest.len() + at)
}

/// The bytes that are 0.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(LOWEST) & word.not() & HIGHEST
}

/// The bytes that are less than a space.
fn below_space(word: u64) -> u64 {
    word.wrapping_sub(LOWEST * 0x20) & word.not() & HIGHEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_and_targets_are_those_of_the_grammar() {
        let of = |class: fn(&[u8]) -> bool| (0..=u8::MAX).filter(|byte| class(&[*byte])).collect::<Vec<_>>();
        let marks = |class| {
            let marks = of(class).into_iter().filter(|byte| !byte.is_ascii_alphanumeric());
            String::from_utf8(marks.collect()).unwrap()
        };
        assert_eq!((of(is_token).len(), of(is_target).len()), (62 + 15, 62 + 22));
        assert_eq!(marks(is_token), "!#$%&'*+-.^_`|~");
        assert_eq!(marks(is_target), "!$%&'()*+,-./:;=?@[]_~");
        assert!(!is_token(b"a b") && !is_target(b"/a b") && is_token(b"") && is_target(b""));
        assert_eq!((token(b"GET / "), token(b"GET"), token(b" ")), (3, 3, 0));
    }

    /// What is taken here is taken, and not changed, by the types that it is put into.
    #[test]
    fn tokens_and_targets_are_taken_by_the_types_of_heads() {
        for byte in 0..=u8::MAX {
            let name = http::HeaderName::from_bytes(&[byte]);
            assert_eq!(is_token(&[byte]), name.is_ok(), "{}", byte.escape_ascii());
            assert_eq!(is_token(&[byte]), http::Method::from_bytes(&[b'A', byte]).is_ok());
            if let Ok(name) = name {
                assert_eq!(name.as_str().as_bytes(), [byte.to_ascii_lowercase()]);
            }
            for target in [&[b'/', byte, b'x'][..], &[b'/', b'?', byte, b'x']] {
                let taken = http::uri::PathAndQuery::try_from(target);
                if is_target(target) {
                    assert_eq!(taken.unwrap().as_str().as_bytes(), target);
                }
            }
            let is_value = text(&[b'a', byte, b'b']) == 3 || byte == b'\t';
            assert_eq!(is_value, http::HeaderValue::from_bytes(&[b'a', byte, b'b']).is_ok());
        }
    }

    #[test]
    fn letters_become_lower_case_and_nothing_else_changes() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut word = [0xff; 8];
                word[place] = byte;
                let lower = word.map(|byte| byte.to_ascii_lowercase());
                assert_eq!(lower_case(u64::from_le_bytes(word)), u64::from_le_bytes(lower), "{word:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_word_is_searched_as_its_bytes_are(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1e..=0x21_u8, 0x7e..=0x81_u8, 0x39..=0x3b_u8], 0..30),
        ) {
            let control = bytes.iter().position(u8::is_ascii_control).unwrap_or(bytes.len());
            prop_assert_eq!(text(&bytes), control);
            prop_assert_eq!(colon(&bytes), bytes.iter().position(|byte| *byte == b':'));
        }
    }
}
