//! The streams of a connection, as the connection knows them.

use std::task::Waker;

use bytes::BytesMut;
use http::HeaderMap;
use tokio::time::Instant;

use super::flow::{ReceiveWindow, SendWindow};

/// So many streams that have ended are remembered, with how they did.
const REMEMBERED: usize = 128;

/// One stream: a request that comes in, and an answer that goes out. It has a place as long as somebody answers it,
/// whatever the client has made of it meanwhile.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its number; 0 in a place that is free, and once the stream has been reset, from whichever side.
    pub(super) id: u32,
    /// Whether all of the request has come.
    pub(super) received: bool,
    /// Whether all of the answer has been written.
    pub(super) sent: bool,
    /// Whether it has ended before its time; nothing more is said on it.
    pub(super) reset: bool,
    /// Whether its body is read by somebody.
    pub(super) wanted: bool,
    /// How much of the body is still to come, if its head says so.
    pub(super) left: Option<u64>,
    /// What has come of the body and was not taken.
    pub(super) held: BytesMut,
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// Of whoever waits for the body.
    pub(super) reader: Option<Waker>,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Whether its answer waits for room in its own window.
    pub(super) starved: bool,
    /// Whether its answer waits in the line for the connection's window and the output.
    pub(super) queued: bool,
    pub(super) rest: Rest,
}

/// What of an answer is here to its end, and waits for the client alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing does: more is to come, or it goes out.
    Goes,
    Waits,
    /// It has not moved since this was noticed.
    Stuck(Instant),
}

/// Places for streams. A place that is free is used again, with its memory.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Vec<Stream>,
    free: Vec<usize>,
    /// How many are neither free nor reset.
    pub(super) active: usize,
    past: Past,
}

/// How a stream ended that has no place any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// On both sides, or the client has reset it.
    Closed,
    /// It was reset from here, and the client may not have known.
    ResetHere,
}

/// The streams that ended last.
#[derive(Debug, Default)]
struct Past {
    ring: Vec<(u32, Ended)>,
    next: usize,
}

impl Streams {
    /// A place for a stream that begins.
    pub(super) fn open(&mut self, id: u32, send: SendWindow, receive: ReceiveWindow) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        let stream = Stream {
            id,
            received: false,
            sent: false,
            reset: false,
            wanted: true,
            left: None,
            held: BytesMut::new(),
            trailers: None,
            reader: None,
            send,
            receive,
            starved: false,
            queued: false,
            rest: Rest::Goes,
        };
        match self.places.get_mut(place) {
            Some(free) => *free = stream,
            None => self.places.push(stream),
        }
        self.active += 1;
        place
    }

    /// How many places are not free.
    pub(super) fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn at(&mut self, place: usize) -> Option<&mut Stream> {
        self.places.get_mut(place)
    }

    pub(super) fn peek(&self, place: usize) -> Option<&Stream> {
        self.places.get(place)
    }

    /// Where the stream with this number is, if it has not ended.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        self.places.iter().position(|stream| stream.id == id)
    }

    /// All that are open.
    pub(super) fn open_ones(&mut self) -> impl Iterator<Item = (usize, &mut Stream)> {
        self.places.iter_mut().enumerate().filter(|(_, stream)| stream.id != 0)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Stream> {
        self.places.iter()
    }

    /// The stream is reset: from here on its number is of one that has ended.
    pub(super) fn reset(&mut self, place: usize, how: Ended) {
        if let Some(stream) = self.places.get_mut(place)
            && stream.id != 0
        {
            self.past.remember(stream.id, how);
            stream.id = 0;
            stream.reset = true;
            self.active -= 1;
        }
    }

    /// Nobody answers it any more: its place is free.
    pub(super) fn free(&mut self, place: usize) {
        let Some(stream) = self.places.get_mut(place) else { return };
        if stream.id != 0 {
            self.past.remember(stream.id, Ended::Closed);
            stream.id = 0;
            self.active -= 1;
        }
        stream.reset = true;
        self.free.push(place);
    }

    /// Lets go of memory, if no stream has a place.
    pub(super) fn release(&mut self) {
        if self.taken() == 0 {
            (self.places, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// How a stream ended that began; nothing, if that is long ago, or it never began.
    pub(super) fn ended(&self, id: u32) -> Option<Ended> {
        self.past.ring.iter().find(|(past, _)| *past == id).map(|(_, how)| *how)
    }

    /// A stream ends that never had a place.
    pub(super) fn pass_over(&mut self, id: u32) {
        self.past.remember(id, Ended::ResetHere);
    }
}

impl Past {
    fn remember(&mut self, id: u32, how: Ended) {
        match self.ring.get_mut(self.next) {
            Some(slot) => *slot = (id, how),
            None => self.ring.push((id, how)),
        }
        self.next = (self.next + 1) % REMEMBERED;
    }
}
