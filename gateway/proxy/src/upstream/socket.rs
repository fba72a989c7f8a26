//! The socket of a connection to an endpoint, and what is to be written to it: by whoever waits for the response, or by
//! the worker at the end of its round.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use super::buffers::Buffers;
use crate::flushes::Flush;
use crate::http1::outgoing::Outgoing;

/// A socket and its output.
pub(super) struct Socket {
    /// A borrow lasts for one poll, and a poll of the socket runs no other code.
    pub(super) stream: RefCell<TcpStream>,
    pub(super) out: RefCell<Outgoing>,
    pub(super) buffers: Rc<Buffers>,
    /// Whether a byte of the request was written.
    wrote: Cell<bool>,
    /// Nothing more can be written. What the endpoint said before it stopped reading may still be read.
    shut: Cell<bool>,
    /// Who goes on when what was left to the worker could not be written at once.
    owner: RefCell<Option<Waker>>,
}

impl Socket {
    /// A socket to which nothing has been written.
    pub(super) fn new(stream: TcpStream, buffers: Rc<Buffers>) -> Self {
        Self {
            stream: RefCell::new(stream),
            out: RefCell::default(),
            buffers,
            wrote: Cell::new(false),
            shut: Cell::new(false),
            owner: RefCell::default(),
        }
    }

    /// The next request begins.
    pub(super) fn begin(&self) {
        self.wrote.set(false);
    }

    /// Whether a byte of the request was written.
    pub(super) fn wrote(&self) -> bool {
        self.wrote.get()
    }

    /// Whether nothing more can be written.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// This task is to go on, if [`Flush::flush`] cannot write everything.
    pub(super) fn set_owner(&self, cx: &Context<'_>) {
        let mut owner = self.owner.borrow_mut();
        match &mut *owner {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *owner = Some(cx.waker().clone()),
        }
    }

    /// Writes everything; ready also if nothing more can be written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() && !self.shut.get() {
            let mut stream = self.stream.borrow_mut();
            let stream = Pin::new(&mut *stream);
            let written = match out.plain() {
                Some(bytes) => stream.poll_write(cx, bytes),
                None => stream.poll_write_vectored(cx, &out.slices()),
            };
            match ready!(written) {
                Ok(written @ 1..) => {
                    self.wrote.set(true);
                    out.advance(written);
                }
                Ok(0) | Err(_) => self.shut.set(true),
            }
        }
        if let Some(memory) = out.give_back() {
            self.buffers.was_written(memory);
        }
        Poll::Ready(())
    }

    /// What was not written never will be.
    pub(super) fn discard(&self) {
        drop(self.out.take());
    }
}

impl Flush for Socket {
    fn flush(&self) {
        let owner = self.owner.borrow();
        let Some(owner) = &*owner else { return };
        let flushed = self.poll_flush(&mut Context::from_waker(owner));
        if flushed.is_ready() && self.shut.get() {
            owner.wake_by_ref();
        }
    }
}
