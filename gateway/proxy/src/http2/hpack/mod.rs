//! HPACK (RFC 7541): heads as the other side of the connection remembers them.
//!
//! Fields are kept in the types in which they are used ([`field`]), so that one that comes a second time is a look-up
//! and a clone, and is not read or checked again.

mod decoder;
mod encoder;
pub(crate) mod field;
mod huffman;
mod integer;
mod static_table;

pub(crate) use self::decoder::{Decoder, Sink};
pub(crate) use self::encoder::{Encoder, Lacking};

/// The size of the table of either direction, in the bytes of RFC 7541 section 4.1, if nobody says otherwise.
const TABLE_SIZE: usize = 4096;
/// What every field in a table takes beside its name and value.
const OVERHEAD: usize = 32;

/// What came is not HPACK; nothing that follows on the connection can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;
