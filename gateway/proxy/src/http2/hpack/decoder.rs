//! Reads field blocks.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::field::{Field, Name, Value};
use super::{Malformed, OVERHEAD, TABLE_SIZE, huffman, integer, static_table};

/// How much memory values share, in bytes.
const SHARED: usize = 1024;

/// Where the fields of a block go.
pub(crate) trait Sink {
    /// Whether a field of so many bytes is wanted. The block is read to its end anyway, because what it puts into the
    /// table is needed by the blocks behind it.
    fn admits(&mut self, length: usize) -> bool;

    /// One field, in its turn.
    fn take(&mut self, field: Field);
}

/// One direction's table, and what reads with it.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest first.
    table: VecDeque<Field>,
    /// In the bytes of RFC 7541 section 4.1.
    size: usize,
    most: usize,
    /// What a string is decoded into.
    text: Vec<u8>,
    /// Where values are copied to that live as long as their request: many share one piece of memory, which is used
    /// again when their requests are done.
    shared: BytesMut,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, most: TABLE_SIZE, text: Vec::new(), shared: BytesMut::new() }
    }
}

impl Decoder {
    /// Reads a whole block.
    ///
    /// # Errors
    /// It is not HPACK, or refers to what is not there.
    pub(crate) fn decode(&mut self, mut block: &[u8], sink: &mut impl Sink) -> Result<(), Malformed> {
        let mut begins = true;
        while let Some(first) = block.first() {
            match first {
                0x80.. => self.indexed(&mut block, sink)?,
                0x40.. => self.literal(&mut block, 6, true, sink)?,
                0x20.. if begins => {
                    self.resize(integer::take(&mut block, 5)?)?;
                    continue;
                }
                0x20.. => return Err(Malformed),
                _ => self.literal(&mut block, 4, false, sink)?,
            }
            begins = false;
        }
        Ok(())
    }

    /// Lets go of memory that is not needed between blocks.
    pub(crate) fn release(&mut self) {
        (self.text, self.shared) = (Vec::new(), BytesMut::new());
    }

    fn indexed(&self, block: &mut &[u8], sink: &mut impl Sink) -> Result<(), Malformed> {
        let number = integer::take(block, 7)?;
        if let Some(place) = number.checked_sub(static_table::LENGTH + 1) {
            let field = self.table.get(place).ok_or(Malformed)?;
            if sink.admits(field.length) {
                sink.take(field.clone());
            }
            return Ok(());
        }
        let field = static_table::field(number).ok_or(Malformed)?;
        if sink.admits(field.length) {
            sink.take(field);
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        is_kept: bool,
        sink: &mut impl Sink,
    ) -> Result<(), Malformed> {
        let (name, name_length) = self.name(block, prefix)?;
        let (value, value_length) = {
            let value = string(block, &mut self.text)?;
            // What is neither kept nor wanted is not made.
            let length = name_length + value.len();
            if !is_kept && !sink.admits(length) {
                return Ok(());
            }
            let shared = &mut self.shared;
            let copy =
                |value: &[u8]| if is_kept { Bytes::copy_from_slice(value) } else { put(shared, value) };
            (Value::read(&name, value, copy), value.len())
        };
        let field = Field { name, value, length: name_length + value_length };
        if !is_kept {
            sink.take(field);
        } else if sink.admits(field.length) {
            self.insert(field.clone());
            sink.take(field);
        } else {
            self.insert(field);
        }
        Ok(())
    }

    fn name(&mut self, block: &mut &[u8], prefix: u32) -> Result<(Name, usize), Malformed> {
        let number = integer::take(block, prefix)?;
        if number == 0 {
            let name = string(block, &mut self.text)?;
            return Ok((Name::read(name), name.len()));
        }
        let name = match number.checked_sub(static_table::LENGTH + 1) {
            Some(place) => self.table.get(place).map(|field| field.name.clone()),
            None => static_table::name(number),
        };
        let name = name.ok_or(Malformed)?;
        let length = name.length();
        Ok((name, length))
    }

    fn resize(&mut self, most: usize) -> Result<(), Malformed> {
        if most > TABLE_SIZE {
            return Err(Malformed);
        }
        self.most = most;
        self.evict(0);
        Ok(())
    }

    fn insert(&mut self, field: Field) {
        let size = field.length + OVERHEAD;
        self.evict(size);
        if size <= self.most {
            self.size += size;
            self.table.push_front(field);
        }
    }

    /// Makes room for so much.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.most {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.length + OVERHEAD;
        }
    }
}

/// Appends to memory that is shared.
fn put(shared: &mut BytesMut, value: &[u8]) -> Bytes {
    if shared.capacity() < value.len() {
        shared.reserve(value.len().max(SHARED));
    }
    shared.extend_from_slice(value);
    shared.split().freeze()
}

/// Takes a string: a piece of the block as it is, or decoded into `text`.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], text: &'a mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let is_encoded = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer::take(block, 7)?;
    let (string, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    if !is_encoded {
        return Ok(string);
    }
    text.clear();
    huffman::decode(string, text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
