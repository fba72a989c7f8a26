//! The body of a response, out of the bytes that came after its head.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::Malformed;
use super::chunked::Chunked;
use super::framing::Framing;

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The next of its bytes; at least one.
    Data(Bytes),
    /// Nothing more comes, but for the trailers that came here. Boxed, since they are rare.
    End(Option<Box<HeaderMap>>),
}

/// Reads one body.
#[derive(Debug)]
pub(crate) struct BodyReader {
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Ended,
    /// It is malformed. Nothing more is read, since nobody knows where.
    Broken(Malformed),
}

impl BodyReader {
    /// Reads a body that is framed like this.
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::new()),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether all of it has been read. Bytes that are received after that belong to no response.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The length of what is still to come, where it is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(length) => Some(length),
            State::Ended => Some(0),
            State::Chunked(_) | State::UntilClose | State::Broken(_) => None,
        }
    }

    /// Takes the next piece off the front of what was received; nothing, if more bytes must come.
    ///
    /// # Errors
    /// If a chunked body is malformed; from then on always.
    pub(crate) fn take(&mut self, received: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        let piece = match &mut self.state {
            State::Ended => Some(Piece::End(None)),
            State::Broken(malformed) => return Err(*malformed),
            State::Chunked(chunked) => match chunked.take(received) {
                Ok(piece) => piece,
                Err(malformed) => {
                    self.state = State::Broken(malformed);
                    return Err(malformed);
                }
            },
            State::Length(_) | State::UntilClose if received.is_empty() => None,
            State::UntilClose => Some(Piece::Data(received.split().freeze())),
            State::Length(left) => {
                let length = usize::try_from(*left).map_or(received.len(), |left| left.min(received.len()));
                *left -= length as u64;
                Some(Piece::Data(received.split_to(length).freeze()))
            }
        };
        if matches!(self.state, State::Length(0)) || matches!(piece, Some(Piece::End(_))) {
            self.state = State::Ended;
        }
        Ok(piece)
    }

    /// The connection has ended, and everything received was taken.
    ///
    /// # Errors
    /// If the body has not.
    pub(crate) fn close(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::UntilClose | State::Ended => {
                self.state = State::Ended;
                Ok(())
            }
            State::Length(_) | State::Chunked(_) => Err(Malformed::Truncated),
            State::Broken(malformed) => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests;
