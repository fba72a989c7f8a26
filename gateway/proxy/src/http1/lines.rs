//! Finds the end of a head or of trailers: the empty line.
//!
//! It looks at each byte once, however the bytes come in; they are parsed when all of them are here. So an endpoint that
//! sends a large head a byte at a time costs no more than one that sends it at once.

use memchr::memchr;

use super::Malformed;

/// A search for the empty line, which goes on where it left off.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Lines {
    /// Bytes looked at.
    seen: usize,
    /// Where the line begins in which the search is.
    line: usize,
}

impl Lines {
    /// The length of the section up to and with its empty line; nothing, if more bytes must come. `bytes` is the section
    /// from its beginning: the same as last time, and what has come since.
    ///
    /// # Errors
    /// If a line ends otherwise than in CR LF, or there is no empty line within `most` bytes.
    pub(super) fn end(
        &mut self,
        bytes: &[u8],
        most: usize,
        what: &'static str,
    ) -> Result<Option<usize>, Malformed> {
        let window = &bytes[..bytes.len().min(most)];
        while let Some(offset) = memchr(b'\n', &window[self.seen..]) {
            let feed = self.seen + offset;
            // httparse takes a lone LF for the end of a line, and has no option to do otherwise.
            if feed == self.line || window[feed - 1] != b'\r' {
                return Err(Malformed::Syntax("a line that ends in LF alone"));
            }
            let empty = feed - 1 == self.line;
            self.seen = feed + 1;
            self.line = self.seen;
            if empty {
                return Ok(Some(self.seen));
            }
        }
        self.seen = window.len();
        if window.len() == most { Err(Malformed::TooLarge(what)) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_line_ends_a_section() {
        let end = |bytes: &[u8]| Lines::default().end(bytes, 100, "it");
        assert_eq!(end(b"a: b\r\n\r\nrest"), Ok(Some(8)));
        assert_eq!(end(b"\r\nrest"), Ok(Some(2)));
        assert_eq!(end(b"a: b\r\n\r"), Ok(None));
        for bare in [&b"a: b\n\r\n"[..], b"a: b\r\n\n", b"\n"] {
            assert!(matches!(end(bare), Err(Malformed::Syntax(_))), "{bare:?}");
        }
    }

    #[test]
    fn a_section_is_bounded() {
        let bytes = b"a: b\r\n\r\n";
        assert_eq!(Lines::default().end(bytes, 8, "it"), Ok(Some(8)));
        assert_eq!(Lines::default().end(bytes, 7, "it"), Err(Malformed::TooLarge("it")));
    }
}
