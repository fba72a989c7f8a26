//! What ties together the log lines of one request.

use std::borrow::Cow;

use http::HeaderValue;

/// The id of a request. Nearly every one is made here, written out once and seldom logged, so it is kept as a number:
/// text would be memory of its own, shared between the record and the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// By this gateway; written as 32 hexadecimal digits.
    Made([u8; 16]),
    /// By a proxy that is trusted.
    Given(HeaderValue),
}

impl RequestId {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self::Made(fastrand::u128(..).to_le_bytes())
    }

    /// As text; empty where it was given and is none.
    pub(crate) fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Made(bytes) => String::from_utf8_lossy(&digits(bytes)).into_owned().into(),
            Self::Given(value) => value.to_str().unwrap_or_default().into(),
        }
    }

    /// As the value of a field.
    pub(crate) fn as_value(&self) -> HeaderValue {
        match self {
            Self::Made(bytes) => {
                HeaderValue::from_bytes(&digits(bytes)).expect("hexadecimal digits are a valid field value")
            }
            Self::Given(value) => value.clone(),
        }
    }

    /// Appends it as the value of a field.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Made(bytes) => out.extend_from_slice(&digits(bytes)),
            Self::Given(value) => out.extend_from_slice(value.as_bytes()),
        }
    }
}

fn digits(bytes: &[u8; 16]) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
    text
}

/// Each byte in hexadecimal digits.
const PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xf]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_the_same_everywhere() {
        let made = RequestId::Made([0x01, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab]);
        let given = RequestId::Given(HeaderValue::from_static("theirs"));
        for (id, expected) in [(made, "01f000000000000000000000000000ab"), (given, "theirs")] {
            let mut written = Vec::new();
            id.write(&mut written);
            assert_eq!(written, expected.as_bytes());
            assert_eq!((&*id.as_text(), id.as_value()), (expected, HeaderValue::from_static(expected)));
        }
        assert_ne!(RequestId::new(), RequestId::new());
    }
}
