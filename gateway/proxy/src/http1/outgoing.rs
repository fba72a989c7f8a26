//! What is to be written to a connection.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// A piece of at most so many bytes is copied; also how much is collected before it is written.
const SMALL: usize = 16 * 1024;

/// Bytes to be written, in their order: those that were made here, a piece of a body just as it came, and what ends it.
/// Small pieces are copied behind what was made, so that one plain write takes all; large ones are not.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    made: Vec<u8>,
    /// How much of `made` has been written.
    written: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Outgoing {
    /// Where more is appended, as long as no piece waits uncopied.
    pub(crate) fn made(&mut self) -> &mut Vec<u8> {
        debug_assert!(!self.has_piece(), "nothing is put in front of what comes first");
        &mut self.made
    }

    /// Appends a piece and what ends it, as long as no other waits uncopied.
    pub(super) fn append(&mut self, piece: Bytes, tail: &'static [u8]) {
        debug_assert!(!self.has_piece(), "nothing is put in front of what comes first");
        if piece.len() <= SMALL {
            self.made.extend_from_slice(&piece);
            self.made.extend_from_slice(tail);
        } else {
            (self.piece, self.tail) = (piece, tail);
        }
    }

    /// Whether a piece waits that was not copied.
    fn has_piece(&self) -> bool {
        !self.piece.is_empty() || !self.tail.is_empty()
    }

    /// Whether more is to be appended before this is written.
    pub(crate) fn has_room(&self) -> bool {
        !self.has_piece() && self.made.len() <= SMALL
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.made.is_empty() && !self.has_piece()
    }

    /// Everything, if it is in one place.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        (!self.has_piece()).then(|| &self.made[self.written..])
    }

    /// Everything.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 3] {
        [&self.made[self.written..], &self.piece, self.tail].map(IoSlice::new)
    }

    /// So many bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        let of_made = count.min(self.made.len() - self.written);
        let of_piece = (count - of_made).min(self.piece.len());
        self.written += of_made;
        if self.written == self.made.len() {
            self.made.clear();
            self.written = 0;
        }
        self.piece.advance(of_piece);
        if self.piece.is_empty() {
            // The memory of the piece is free for the next.
            self.piece = Bytes::new();
            self.tail = &self.tail[count - of_made - of_piece..];
        }
    }

    /// Takes memory to write to, if it has none.
    pub(crate) fn borrow(&mut self, memory: impl FnOnce() -> Vec<u8>) {
        if self.made.capacity() == 0 {
            self.made = memory();
        }
    }

    /// Gives its memory away, if there is nothing in it.
    pub(crate) fn give_back(&mut self) -> Option<Vec<u8>> {
        (self.made.is_empty() && self.made.capacity() > 0).then(|| std::mem::take(&mut self.made))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_pieces_are_copied_and_large_ones_are_not() {
        let mut out = Outgoing::default();
        out.made().extend_from_slice(b"head ");
        out.append(Bytes::from_static(b"small"), b"!");
        assert_eq!(out.plain(), Some(&b"head small!"[..]));
        assert!(out.has_room());
        let large = Bytes::from(vec![b'x'; SMALL + 1]);
        let place = large.as_ptr();
        out.append(large, b"");
        assert_eq!((out.plain(), out.has_room()), (None, false));
        assert_eq!(out.slices()[1].as_ptr(), place);
    }

    proptest! {
        #[test]
        fn what_was_appended_is_written_whatever_is_taken_at_a_time(
            head in vec(any::<u8>(), 0..20),
            length in prop_oneof![0..40usize, SMALL..SMALL + 40],
            taken in vec(1..SMALL, 1..20),
        ) {
            let mut out = Outgoing::default();
            out.made().extend_from_slice(&head);
            out.append(Bytes::from(vec![b'x'; length]), b"tail");
            let mut seen = Vec::new();
            let mut taken = taken.into_iter().cycle();
            while !out.is_empty() {
                let everything: Vec<u8> = out.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert!(out.plain().is_none_or(|plain| *plain == everything[..]));
                let count = taken.next().unwrap().min(everything.len());
                seen.extend_from_slice(&everything[..count]);
                out.advance(count);
            }
            prop_assert_eq!(seen, [&head[..], &vec![b'x'; length], b"tail"].concat());
        }
    }
}
