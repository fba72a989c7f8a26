//! What is to be written to the client.

/// With so much waiting, no more of any body is asked for, and nothing more is read.
const FULL: usize = 64 * 1024;

/// Bytes that wait to be written, in their order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
}

impl Output {
    /// Where more is appended.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether more of a body may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting().len() < FULL
    }

    /// What is to be written next.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// So many bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= FULL {
            // A client that takes little at a time makes it move now and then.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Takes memory to write to, if it has none.
    pub(crate) fn borrow(&mut self, memory: impl FnOnce() -> Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = memory();
        }
    }

    /// Gives its memory away, if there is nothing in it.
    pub(crate) fn give_back(&mut self) -> Option<Vec<u8>> {
        (self.bytes.is_empty() && self.bytes.capacity() > 0).then(|| std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_written_once() {
        let mut output = Output::default();
        output.bytes().extend_from_slice(b"abc");
        output.advance(2);
        output.bytes().extend_from_slice(b"d");
        assert!(output.give_back().is_none());
        assert_eq!(output.waiting(), b"cd");
        output.advance(2);
        assert!(output.waiting().is_empty() && output.give_back().is_some());
        output.bytes().resize(3 * FULL, b'x');
        assert!(!output.has_room());
        output.advance(FULL + 1);
        output.advance(FULL);
        assert_eq!(output.waiting().len(), FULL - 1);
        assert!(output.has_room());
    }
}
