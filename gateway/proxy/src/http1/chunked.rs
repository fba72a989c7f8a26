//! The chunked coding (RFC 9112 section 7.1), read strictly.

use bytes::{Buf, BytesMut};
use http::HeaderMap;
use httparse::{EMPTY_HEADER, Status};

use super::Malformed;
use super::body::Piece;
use super::lines::Lines;
use super::response::{MOST_FIELDS, collect};

/// Digits of a size: as many as 64 bits have. More could only be zeros in front, and nobody needs those.
const MOST_DIGITS: u8 = 16;

/// Bytes of extensions in one body. Nobody uses them, but they are read past, so they may not go on for ever.
const MOST_EXTENSION: usize = 16 * 1024;

/// Bytes of trailers.
const MOST_TRAILERS: usize = 16 * 1024;

/// Reads a chunked body.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Of the size that is read, or of the chunk's data that are still to come.
    size: u64,
    extension: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// In the size, after so many digits.
    Size(u8),
    /// After a semicolon.
    ExtensionBegins,
    Extension,
    /// Within the quotes of an extension's value.
    Quoted,
    /// After a backslash within the quotes.
    Escaped,
    /// After the CR of the line with the size.
    SizeFeed,
    Data,
    /// After the data.
    DataReturn,
    DataFeed,
    Trailers(Lines),
}

impl Chunked {
    /// A body of which nothing has been read.
    pub(crate) fn new() -> Self {
        Self { state: State::Size(0), size: 0, extension: 0 }
    }

    /// Takes the next piece off the front of what was received; nothing, if more bytes must come. Not to be called again
    /// after the end.
    ///
    /// # Errors
    /// If it is not the chunked coding, or its extensions or trailers are too large.
    pub(super) fn take(&mut self, received: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        loop {
            match self.state {
                State::Data => return Ok(self.data(received)),
                State::Trailers(mut lines) => {
                    let end = lines.end(received, MOST_TRAILERS, "the trailers")?;
                    self.state = State::Trailers(lines);
                    return end.map(|length| trailers(received.split_to(length))).transpose();
                }
                _ => {}
            }
            if !self.between_data(received)? {
                return Ok(None);
            }
        }
    }

    /// Reads on without taking anything: how many of these bytes, the first of which were not passed before, belong to
    /// the body and may be passed, and whether it ends with them. Trailers are passed when all of them are here.
    ///
    /// # Errors
    /// As in [`Chunked::take`].
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut passed = 0;
        while let Some(byte) = bytes.get(passed) {
            match self.state {
                State::Data => {
                    let left = bytes.len() - passed;
                    let length = usize::try_from(self.size).map_or(left, |size| size.min(left));
                    self.size -= length as u64;
                    passed += length;
                    if self.size == 0 {
                        self.state = State::DataReturn;
                    }
                }
                State::Trailers(mut lines) => {
                    let section = &bytes[passed..];
                    let end = lines.end(section, MOST_TRAILERS, "the trailers")?;
                    self.state = State::Trailers(lines);
                    let Some(length) = end else { break };
                    trailers(BytesMut::from(&section[..length]))?;
                    return Ok((passed + length, true));
                }
                _ => {
                    self.state = self.after(*byte)?;
                    passed += 1;
                }
            }
        }
        Ok((passed, false))
    }

    fn data(&mut self, received: &mut BytesMut) -> Option<Piece> {
        if received.is_empty() {
            return None;
        }
        let length = usize::try_from(self.size).map_or(received.len(), |size| size.min(received.len()));
        self.size -= length as u64;
        if self.size == 0 {
            self.state = State::DataReturn;
        }
        Some(Piece::Data(received.split_to(length).freeze()))
    }

    /// Reads what stands between the data of two chunks; says whether the data, or the trailers, have begun.
    fn between_data(&mut self, received: &mut BytesMut) -> Result<bool, Malformed> {
        let mut read = 0;
        while let Some(byte) = received.get(read) {
            read += 1;
            self.state = self.after(*byte)?;
            if matches!(self.state, State::Data | State::Trailers(_)) {
                break;
            }
        }
        received.advance(read);
        Ok(matches!(self.state, State::Data | State::Trailers(_)))
    }

    fn after(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size(MOST_DIGITS), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                Err(Malformed::TooLarge("the size of a chunk"))
            }
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).expect("the byte is a hexadecimal digit");
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size(digits + 1))
            }
            (State::Size(1..), b';') => Ok(State::ExtensionBegins),
            (State::Size(1..) | State::Extension, b'\r') => Ok(State::SizeFeed),
            (State::SizeFeed, b'\n') if self.size == 0 => Ok(State::Trailers(Lines::default())),
            (State::SizeFeed, b'\n') => Ok(State::Data),
            (State::DataReturn, b'\r') => Ok(State::DataFeed),
            (State::DataFeed, b'\n') => Ok(State::Size(0)),
            (
                State::ExtensionBegins | State::Extension | State::Quoted | State::Escaped,
                b'\t' | b' '..=b'~' | 0x80..,
            ) => self.extended(byte),
            (State::Size(_), _) => Err(Malformed::Syntax("the size of a chunk")),
            (State::DataReturn | State::DataFeed, _) => Err(Malformed::Syntax("the end of a chunk")),
            _ => Err(Malformed::Syntax("the extension of a chunk")),
        }
    }

    fn extended(&mut self, byte: u8) -> Result<State, Malformed> {
        self.extension += 1;
        if self.extension > MOST_EXTENSION {
            return Err(Malformed::TooLarge("the extension of a chunk"));
        }
        match (self.state, byte) {
            (State::ExtensionBegins, b'\t' | b' ') => Ok(State::ExtensionBegins),
            (State::ExtensionBegins, b';' | b'=' | b'"') => {
                Err(Malformed::Syntax("an extension without a name"))
            }
            (State::Extension, b';') => Ok(State::ExtensionBegins),
            (State::Extension, b'"') | (State::Escaped, _) => Ok(State::Quoted),
            (State::Quoted, b'\\') => Ok(State::Escaped),
            (State::Quoted, byte) if byte != b'"' => Ok(State::Quoted),
            _ => Ok(State::Extension),
        }
    }
}

fn trailers(section: BytesMut) -> Result<Piece, Malformed> {
    let section = section.freeze();
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(&section, &mut fields)? {
        Status::Complete((length, fields)) if length == section.len() => {
            Ok(Piece::End(collect(&section, fields).map(said)?))
        }
        _ => Err(Malformed::Syntax("an empty line within the trailers")),
    }
}

fn said(trailers: HeaderMap) -> Option<Box<HeaderMap>> {
    (!trailers.is_empty()).then(|| Box::new(trailers))
}
