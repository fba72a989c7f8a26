//! The head of a request on its way to an endpoint.

use std::ops::Deref;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, header};

use super::request_id::RequestId;

/// The client's head, made fit for an endpoint, and what the gateway says beside it.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    pub(crate) parts: Parts,
    pub(crate) added: Added,
    /// The length of what was taken off the path's beginning. It is in the path still, since it is told to the endpoint,
    /// and a path that is cut would be made anew.
    stripped: usize,
}

/// Fields that the gateway adds. Problem: each field that goes into a map is hashed and makes the map grow, only to be
/// written out again, and most of ours are the same for all requests of a connection. Choice: they are kept beside the
/// map as they are written. The map has no field of these names, but for `Via`, of which ours is the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Added {
    /// Whole lines, each with its end.
    pub(crate) lines: Option<Rc<[u8]>>,
    pub(crate) via: Option<HeaderValue>,
    pub(crate) request_id: Option<RequestId>,
    /// Whether the map is known to have a `Host`.
    pub(crate) names_host: bool,
    /// Whether the map may have what a proxy before this one said, and ours is to join it there.
    pub(crate) follows_proxy: bool,
}

impl From<Parts> for Outbound {
    /// Nothing added.
    fn from(parts: Parts) -> Self {
        Self { parts, added: Added::default(), stripped: 0 }
    }
}

impl Outbound {
    /// The path that the endpoint is asked for, with the query.
    pub(crate) fn target(&self) -> &str {
        self.whole_target().get(self.stripped..).unwrap_or("/")
    }

    /// Whether the map has a `Host`.
    pub(crate) fn names_host(&self) -> bool {
        self.added.names_host || self.parts.headers.contains_key(header::HOST)
    }

    /// What was taken off the path's beginning, and is to be told beside the fields of the map.
    pub(crate) fn prefix(&self) -> &str {
        self.whole_target().get(..self.stripped).unwrap_or_default()
    }

    fn whole_target(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// Takes so much more off the path's beginning. What is left is to begin with a slash.
    pub(crate) fn strip(&mut self, length: usize) {
        self.stripped += length;
    }

    /// Nothing is taken off any more.
    pub(crate) fn unstrip(&mut self) {
        self.stripped = 0;
    }

    /// Appends the fields that are not in the map, as HTTP/1.1 writes them.
    pub(crate) fn write_added(&self, out: &mut Vec<u8>) {
        self.added.write(out);
        if self.stripped > 0 {
            for piece in [b"x-forwarded-prefix: ", self.prefix().as_bytes(), b"\r\n"] {
                out.extend_from_slice(piece);
            }
        }
    }
}

impl Added {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(lines) = &self.lines {
            out.extend_from_slice(lines);
        }
        if let Some(via) = &self.via {
            for piece in [b"via: ", via.as_bytes(), b"\r\n"] {
                out.extend_from_slice(piece);
            }
        }
        if let Some(id) = &self.request_id {
            out.extend_from_slice(b"x-request-id: ");
            id.write(out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Deref for Outbound {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
