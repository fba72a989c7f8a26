//! The head of a request on its way to an endpoint.

use std::ops::Deref;
use std::rc::Rc;

use http::HeaderValue;
use http::request::Parts;

/// The client's head, made fit for an endpoint, and what the gateway says beside it.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    pub(crate) parts: Parts,
    pub(crate) added: Added,
}

/// Fields that the gateway adds. Problem: each field that goes into a map is hashed and makes the map grow, only to be
/// written out again, and most of ours are the same for all requests of a connection. Choice: they are kept beside the
/// map as they are written. The map has no field of these names, but for `Via`, of which ours is the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Added {
    /// Whole lines, each with its end.
    pub(crate) lines: Option<Rc<[u8]>>,
    pub(crate) via: Option<HeaderValue>,
    pub(crate) request_id: Option<HeaderValue>,
}

impl Added {
    /// Appends the fields as HTTP/1.1 writes them.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if let Some(lines) = &self.lines {
            out.extend_from_slice(lines);
        }
        for (name, value) in [(&b"via: "[..], &self.via), (b"x-request-id: ", &self.request_id)] {
            if let Some(value) = value {
                out.extend_from_slice(name);
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

#[cfg(test)]
impl From<Parts> for Outbound {
    /// Nothing added.
    fn from(parts: Parts) -> Self {
        Self { parts, added: Added::default() }
    }
}

impl Deref for Outbound {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
