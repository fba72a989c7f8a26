//! Memory that a worker's connections read into and write from.
//!
//! A connection has some only while it needs it, so an idle one costs none. What was used last is used first: most
//! messages are small and pass within one turn of the worker, so that a few buffers, warm in the processor's cache, serve
//! all connections.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;

use crate::http::spare_headers::SpareHeaders;

/// So many of each kind are kept.
const KEPT: usize = 32;

/// Memory larger than this is not kept.
const LARGEST: usize = 64 * 1024;

/// Buffers that nobody uses just now.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    read: RefCell<Vec<BytesMut>>,
    written: RefCell<Vec<Vec<u8>>>,
    /// For the heads of responses.
    pub(super) headers: Rc<SpareHeaders>,
}

impl Buffers {
    /// None yet.
    pub(crate) fn new(headers: Rc<SpareHeaders>) -> Self {
        Self { headers, ..Self::default() }
    }

    /// To read into.
    pub(crate) fn to_read(&self) -> BytesMut {
        self.read.borrow_mut().pop().unwrap_or_default()
    }

    /// Nothing more is read into it. Bytes that were split off may live on; the memory is used again when they are gone.
    pub(crate) fn was_read(&self, buffer: BytesMut) {
        let mut read = self.read.borrow_mut();
        if read.len() < KEPT {
            read.push(buffer);
        }
    }

    /// To write from.
    pub(crate) fn to_write(&self) -> Vec<u8> {
        self.written.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// All of it was written.
    pub(crate) fn was_written(&self, buffer: Vec<u8>) {
        let mut written = self.written.borrow_mut();
        if written.len() < KEPT && buffer.capacity() <= LARGEST {
            written.push(buffer);
        }
    }
}
