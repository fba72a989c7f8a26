//! The fields of a head: where they stand, and the map that is made of them.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::classes;
use super::known::Known;

/// Where a field stands; its value without the white space around it.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) known: Option<Known>,
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// What the types of the `http` crate do not take, of fields whose grammar is sound.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unfit {
    Name,
    Value,
    /// There are too many.
    Number,
}

impl Field {
    /// Reads `name: value`, a line of `bytes` that has no control character but tabs. Nothing if it is no field.
    pub(super) fn read(bytes: &[u8], line: Range<usize>) -> Option<Self> {
        let text = &bytes[line.clone()];
        let (name, value) = text.split_at_checked(classes::colon(text)?)?;
        let known = Known::of(name);
        if known.is_none() && (name.is_empty() || !classes::is_token(name)) {
            return None;
        }
        let name = line.start..line.start + name.len();
        let value = value[1..].trim_ascii_start();
        let start = line.end - value.len();
        Some(Self { known, name, value: start..start + value.trim_ascii_end().len() })
    }

    /// Puts the field, which is one of `head`, into a map. Its value shares the memory of the head.
    ///
    /// # Errors
    /// It does not fit.
    pub(super) fn append(&self, head: &Bytes, headers: &mut HeaderMap) -> Result<(), Unfit> {
        let name = self.name(head)?;
        let value = HeaderValue::from_maybe_shared(head.slice(self.value.clone()));
        headers.try_append(name, value.map_err(|_| Unfit::Value)?).map_err(|_| Unfit::Number)?;
        Ok(())
    }

    fn name(&self, head: &Bytes) -> Result<HeaderName, Unfit> {
        match self.known {
            Some(known) => Ok(known.name()),
            None => HeaderName::from_bytes(&head[self.name.clone()]).map_err(|_| Unfit::Name),
        }
    }
}
