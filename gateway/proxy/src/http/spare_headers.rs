//! Header maps that nobody needs any more, kept for the next message: a map is two pieces of memory, and growing one is
//! dearer than emptying it.

use std::cell::RefCell;

use http::HeaderMap;

/// How many are kept: as many as one worker has in use at a time when it is busy.
const MOST: usize = 64;
/// A new map has room for so many fields. One with less would grow with the next message, and is let go of.
const SMALL: usize = 12;
/// And so is one with room for more than this.
const LARGE: usize = 128;

/// One worker's spare header maps.
#[derive(Debug, Default)]
pub(crate) struct SpareHeaders(RefCell<Vec<HeaderMap>>);

impl SpareHeaders {
    /// An empty map with room for the fields of most heads.
    pub(crate) fn take(&self) -> HeaderMap {
        self.0.borrow_mut().pop().unwrap_or_else(|| HeaderMap::with_capacity(SMALL))
    }

    /// Keeps the memory of a map; its fields go.
    pub(crate) fn give(&self, mut headers: HeaderMap) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < MOST && (SMALL..=LARGE).contains(&headers.capacity()) {
            headers.clear();
            spare.push(headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn memory_comes_back_and_fields_do_not() {
        let spare = SpareHeaders::default();
        let new = spare.take().capacity();
        let mut headers = HeaderMap::with_capacity(60);
        headers.insert(http::header::COOKIE, HeaderValue::from_static("secret"));
        let capacity = headers.capacity();
        spare.give(headers);
        let again = spare.take();
        assert_eq!((again.len(), again.capacity()), (0, capacity));

        for (capacity, what) in [(1000, "large"), (3, "small")] {
            spare.give(HeaderMap::with_capacity(capacity));
            assert_eq!(spare.take().capacity(), new, "a {what} one is not kept");
        }
    }
}
