//! HTTP/1.1 as bytes: heads, the framing of bodies, the writing of requests. Nothing here reads or writes a
//! socket, so every split of the bytes can be tried in a test.
//!
//! It is strict where readers differ, because a message that two readers cut differently lets one request be taken for
//! two: a line ends in CR LF, a length is said once, a chunk's size is digits and nothing else. What is refused here
//! ends the connection.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod classes;
mod fields;
pub(crate) mod framing;
mod known;
mod lines;
pub(crate) mod outgoing;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod write;

/// Bytes that are not the HTTP/1.1 that is understood here. The connection that they came over is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// They break the grammar.
    #[error("not HTTP/1.1: {0}")]
    Syntax(&'static str),
    /// They are more than is taken.
    #[error("{0} is too large")]
    TooLarge(&'static str),
    /// Readers may differ over where the message ends.
    #[error("the end of the message is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// The connection ended before the message did.
    #[error("the message broke off")]
    Truncated,
}
