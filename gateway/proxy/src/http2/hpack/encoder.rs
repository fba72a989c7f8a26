//! Writes field blocks.
//!
//! Problem: most heads of responses say much the same, and searching a table for each field costs more than writing it.
//! Choice: each name has one place in a small map, with the value that was said last. A value that comes a second time
//! goes into the table of the other side, and from then on it is one byte; one that comes once is written as it is, so
//! that what is different in each response pushes nothing out. A name that alternates between two values gains
//! nothing; responses of one service seldom do. Nothing is written in the Huffman code: it saves a third of the bytes
//! of what is said once, and costs as much as all the rest.

use std::collections::VecDeque;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{OVERHEAD, TABLE_SIZE, integer, static_table};

/// How many names have a place at a time.
const PLACES: usize = 64;

/// What is known of the other side's table.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// None until there is something to remember.
    places: Vec<Option<Place>>,
    /// The sizes of the fields in the table, the oldest first.
    sizes: VecDeque<usize>,
    /// How many fields have ever gone into the table.
    inserted: u64,
    size: usize,
    most: usize,
    /// The smallest size that the other side has asked for, and has not been told of.
    told_less: Option<usize>,
}

/// What a head is to say if its fields do not.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    /// When it was made.
    pub(crate) date: Option<HeaderValue>,
    /// How long the body is, in bytes.
    pub(crate) length: Option<u64>,
}

/// What was said last under a name.
#[derive(Debug)]
struct Place {
    name: HeaderName,
    /// Its number in the static table; 0, if it has none.
    number: usize,
    /// What was said last.
    print: u64,
    /// What is in the table, and as which of all that ever were.
    kept: Option<(HeaderValue, u64)>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            sizes: VecDeque::new(),
            inserted: 0,
            size: 0,
            most: TABLE_SIZE,
            told_less: None,
        }
    }
}

impl Encoder {
    /// The other side keeps a table of at most this size.
    pub(crate) fn resize(&mut self, most: usize) {
        let most = most.min(TABLE_SIZE);
        if most == self.most {
            return;
        }
        self.told_less = Some(self.told_less.map_or(most, |told| told.min(most)));
        self.most = most;
        self.evict(0);
    }

    /// Appends the head of a response, with what it lacks.
    pub(crate) fn head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        lacking: &Lacking,
        out: &mut Vec<u8>,
    ) {
        self.tell_size(out);
        match static_table::status(status.as_u16()) {
            Some(number) => out.push(0x80 | number),
            None => {
                out.push(static_table::STATUS as u8);
                string(status.as_str().as_bytes(), out);
            }
        }
        let (mut has_date, mut has_length) = (false, false);
        self.fields(headers, out, |name| {
            has_date |= *name == header::DATE;
            has_length |= *name == header::CONTENT_LENGTH;
        });
        if let (Some(length), false) = (lacking.length, has_length) {
            self.field(&header::CONTENT_LENGTH, &HeaderValue::from(length), out);
        }
        if let (Some(date), false) = (&lacking.date, has_date) {
            self.field(&header::DATE, date, out);
        }
    }

    /// Appends fields that stand alone: trailers.
    pub(crate) fn trailers(&mut self, headers: &HeaderMap, out: &mut Vec<u8>) {
        self.tell_size(out);
        self.fields(headers, out, |_| {});
    }

    /// Forgets what it could refer to, and lets go of the memory. What the other side has stays there until it is
    /// pushed out.
    pub(crate) fn release(&mut self) {
        self.places = Vec::new();
    }

    fn fields(&mut self, headers: &HeaderMap, out: &mut Vec<u8>, mut note: impl FnMut(&HeaderName)) {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        for (name, value) in headers {
            note(name);
            self.field(name, value, out);
        }
    }

    fn field(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
        let text = name.as_str().as_bytes();
        let place = place_of(text);
        let oldest = self.inserted - self.sizes.len() as u64;
        let Some(slot) = self.places.get_mut(place) else { return };
        if slot.as_ref().is_none_or(|place| place.name != *name) {
            *slot = Some(Place {
                name: name.clone(),
                number: static_table::number_of(name),
                print: 0,
                kept: None,
            });
        }
        let Some(place) = slot else { return };
        if let Some((kept, number)) = &place.kept
            && *number >= oldest
            && is_same(kept, value)
        {
            let newer = (self.inserted - 1 - number) as usize;
            integer::put(static_table::LENGTH + 1 + newer, 7, 0x80, out);
            return;
        }
        let print = fingerprint(value.as_bytes());
        let size = text.len() + value.len() + OVERHEAD;
        let number = place.number;
        // How long a secret of one response is must not depend on what was guessed in another.
        let is_secret = value.is_sensitive() || *name == header::SET_COOKIE;
        let again = std::mem::replace(&mut place.print, print) == print;
        if again && !is_secret && size <= self.most / 4 {
            place.kept = HeaderValue::from_bytes(value.as_bytes()).ok().map(|copy| (copy, self.inserted));
            integer::put(number, 6, 0x40, out);
            self.insert(size);
        } else {
            integer::put(number, 4, if is_secret { 0x10 } else { 0 }, out);
        }
        if number == 0 {
            string(text, out);
        }
        string(value.as_bytes(), out);
    }

    fn insert(&mut self, size: usize) {
        self.evict(size);
        self.sizes.push_back(size);
        self.size += size;
        self.inserted += 1;
    }

    /// Makes room for so much, as the other side does.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.most {
            let Some(oldest) = self.sizes.pop_front() else { return };
            self.size -= oldest;
        }
    }

    /// A block begins with the size of the table, if that has changed since the last.
    fn tell_size(&mut self, out: &mut Vec<u8>) {
        if let Some(less) = self.told_less.take() {
            if less < self.most {
                integer::put(less, 5, 0x20, out);
            }
            integer::put(self.most, 5, 0x20, out);
        }
    }
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer::put(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// The place of a name.
fn place_of(name: &[u8]) -> usize {
    let at = |place: usize| usize::from(name.get(place).copied().unwrap_or(0));
    let last = usize::from(name.last().copied().unwrap_or(0));
    (name.len() * 5 + at(0) * 3 + last * 7 + at(name.len() / 2) * 11) % PLACES
}

/// Mostly it is the very same memory, or short.
fn is_same(one: &HeaderValue, other: &HeaderValue) -> bool {
    one.as_bytes() == other.as_bytes()
}

/// Tells values apart; that two have the same one does no harm, but is unlikely.
fn fingerprint(value: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = value.as_chunks::<8>();
    let mix = |print: u64, word: u64| (print ^ word).wrapping_mul(MIX).rotate_left(29);
    let print =
        words.iter().fold(value.len() as u64 + 1, |print, word| mix(print, u64::from_le_bytes(*word)));
    mix(print, rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))) | 1
}

#[cfg(test)]
mod tests;
