//! The lines of a watch: one JSON document each, as they come.

use http_body_util::BodyExt;
use kube::client::Body;

use super::request::{Failure, unreachable};

/// The longest line. etcd holds objects of 1.5 MB; twice that and room for escapes.
const MAX_LINE: usize = 8 << 20;

/// Cuts a body into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// The next line without its end; `None` when the body has ended. A last line without an end was cut off on its
    /// way and is dropped: the server ends every one that it sends whole.
    ///
    /// Dropping the future loses nothing: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let (start, end) = (self.start, self.searched + end);
                (self.start, self.searched) = (end + 1, end + 1);
                return Ok(Some(&self.buffer[start..end]));
            }
            self.compact();
            if self.buffer.len() > MAX_LINE {
                return Err(Failure::Garbled(format!("a line is longer than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(unreachable(&error)),
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
        }
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.searched = self.buffer.len();
        // One huge slice must not hold its memory for as long as the watch runs.
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_a_cut_one_is_dropped() {
        let mut lines = Lines::new(Body::from(b"one\n\ntwo\nthr".to_vec()));
        assert_eq!(lines.next().await.unwrap(), Some(&b"one"[..]));
        assert_eq!(lines.next().await.unwrap(), Some(&b""[..]));
        assert_eq!(lines.next().await.unwrap(), Some(&b"two"[..]));
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_bounded() {
        let mut lines = Lines::new(Body::from(vec![b'x'; MAX_LINE + 1]));
        assert!(matches!(lines.next().await, Err(Failure::Garbled(_))));
    }
}
