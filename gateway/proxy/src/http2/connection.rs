//! One client's connection: what its bytes mean, and what they are answered with.
//!
//! Whoever owns the socket hands over what has come ([`Connection::receive`]), takes the requests that came of it
//! ([`Connection::take_request`]), and writes what is to go out ([`Connection::output`]). Whoever answers a request
//! holds its *place*, says the answer through it, and frees it in the end. A place that has to be looked at, because
//! the client has reset its stream or made room for more of its answer, is told by [`Connection::take_touched`] and
//! [`Connection::take_next_in_line`]; nobody polls for it.
//!
//! Memory has bounds: of a request's body there is never more than its window, of a head no more than the limit, and
//! answers stop when the output is full. What costs a client nothing and makes work here has an [`Allowance`].

mod answers;
mod bodies;
mod control;
mod receive;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use http::request::Parts;
use tokio::time::Instant;

pub(crate) use self::answers::Sent;
pub(crate) use self::bodies::Piece;
use super::allowance::Allowance;
use super::flow::{FIRST_WINDOW, ReceiveWindow, SendWindow};
use super::frame::{self, ErrorCode, Kind};
use super::hpack::{Decoder, Encoder};
use super::output::Output;
use super::settings::Settings;
use super::stream::{Ended, Streams};
use crate::error::Failure;
use crate::http::spare_headers::SpareHeaders;
use crate::http1::request::Limits;

/// The highest number of a stream.
const LAST_STREAM: u32 = 0x7fff_ffff;
/// The PING whose answer tells that the client has seen the first of two GOAWAYs.
const GOING_AWAY: [u8; 8] = *b"go away?";

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    settings: Settings,
    /// Whether the client has said that it knows the settings.
    is_known: bool,
    limits: Limits,
    /// When it was last told the time.
    now: Instant,
    stage: Stage,
    /// What has come of a frame, or of the preface, that has not come whole.
    partial: Vec<u8>,
    data: Option<receive::Payload>,
    block: Option<receive::Block>,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    /// The highest number of a stream that has begun.
    last: u32,
    send: SendWindow,
    receive: ReceiveWindow,
    /// What the windows of streams begin with, as the client says.
    first_window: i64,
    output: Output,
    requests: VecDeque<Asked>,
    touched: Vec<usize>,
    /// Places whose answer waits for the connection's window or the output, the longest first.
    line: VecDeque<usize>,
    leaving: Leaving,
    allowance: Allowance,
    /// How many streams have broken a rule that nobody was told of here.
    faults: u64,
    spare: Rc<SpareHeaders>,
}

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preface,
    /// The first frame must be SETTINGS.
    Settings,
    Open,
    /// It has broken, and nothing that comes is looked at.
    Broken,
}

/// How far it is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was told not to begin anything; what it began before it knew is still taken.
    Announced,
    /// Nothing beyond this stream is taken.
    Last(u32),
}

/// A request that has come.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Its place, for whoever answers it.
    pub(crate) place: usize,
    /// Its number.
    pub(crate) stream: u32,
    /// What is asked, or why there is no more to it than an answer.
    pub(crate) head: Result<Parts, Failure>,
    /// Whether a body follows, and how long it is, if that is said.
    pub(crate) body: Option<Option<u64>>,
}

/// The connection is broken: what came, and what the client has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code:?})")]
pub(crate) struct Broken {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The connection ends.
    Connection(ErrorCode, &'static str),
    /// The stream with this number ends.
    Stream(u32, ErrorCode),
}

impl Connection {
    /// One that begins now; its first frames wait to be written.
    pub(crate) fn new(settings: Settings, limits: Limits, spare: Rc<SpareHeaders>, now: Instant) -> Self {
        let mut output = Output::default();
        settings.write(output.bytes());
        Self {
            settings,
            is_known: false,
            limits,
            now,
            stage: Stage::Preface,
            partial: Vec::new(),
            data: None,
            block: None,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            streams: Streams::default(),
            last: 0,
            send: SendWindow::new(FIRST_WINDOW),
            receive: ReceiveWindow::new(settings.connection_window),
            first_window: FIRST_WINDOW,
            output,
            requests: VecDeque::new(),
            touched: Vec::new(),
            line: VecDeque::new(),
            leaving: Leaving::No,
            allowance: Allowance::new(now),
            faults: 0,
            spare,
        }
    }

    /// Under these limits, and at this time, what comes next is read.
    pub(crate) fn at(&mut self, limits: Limits, now: Instant) {
        (self.limits, self.now) = (limits, now);
    }

    /// What is to be written.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Takes a request that has come and was not cancelled since.
    pub(crate) fn take_request(&mut self) -> Option<Asked> {
        self.requests.pop_front()
    }

    /// Takes a place whose stream the client has reset.
    pub(crate) fn take_touched(&mut self) -> Option<usize> {
        self.touched.pop()
    }

    /// How many streams have broken a rule since this was last asked.
    pub(crate) fn take_faults(&mut self) -> u64 {
        std::mem::take(&mut self.faults)
    }

    /// Takes the place whose answer has waited longest, if there is room for some of it now.
    pub(crate) fn take_next_in_line(&mut self) -> Option<usize> {
        if self.line.is_empty() || self.send.room() == 0 || !self.output.has_room() {
            return None;
        }
        let place = self.line.pop_front()?;
        if let Some(stream) = self.streams.at(place) {
            stream.queued = false;
        }
        Some(place)
    }

    /// Asks the client to take its next requests elsewhere; what is in flight, and what it sends before it knows, is
    /// answered.
    pub(crate) fn leave(&mut self) {
        if self.leaving != Leaving::No || self.stage == Stage::Broken {
            return;
        }
        self.leaving = Leaving::Announced;
        self.write_go_away(LAST_STREAM, ErrorCode::NoError);
        frame::write(Kind::Ping, 0, 0, &GOING_AWAY, self.output.bytes());
    }

    /// Whether all is said and done: the client knows that nothing more is taken, and all streams have ended.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.leaving, Leaving::Last(_)) && self.streams.taken() == 0
    }

    /// Begins anew with the first place, if no stream has one.
    pub(crate) fn forget_places(&mut self) {
        self.streams.release();
    }

    /// Whether no stream has a place.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams.taken() == 0
    }

    /// Lets go of memory that an idle connection does not need.
    pub(crate) fn release(&mut self) {
        if self.streams.taken() > 0 {
            return;
        }
        self.streams.release();
        self.decoder.release();
        self.encoder.release();
        (self.requests, self.touched, self.line) = (VecDeque::new(), Vec::new(), VecDeque::new());
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        drop(self.output.give_back());
    }

    fn leave_for_good(&mut self) {
        if self.leaving == Leaving::Announced {
            self.leaving = Leaving::Last(self.last);
            self.write_go_away(self.last, ErrorCode::NoError);
        }
    }

    fn write_go_away(&mut self, last: u32, code: ErrorCode) {
        let [l0, l1, l2, l3] = last.to_be_bytes();
        let [c0, c1, c2, c3] = (code as u32).to_be_bytes();
        frame::write(Kind::GoAway, 0, 0, &[l0, l1, l2, l3, c0, c1, c2, c3], self.output.bytes());
    }

    /// Resets a stream from here.
    fn write_reset(&mut self, stream: u32, code: ErrorCode) {
        frame::write_number(Kind::ResetStream, stream, code as u32, self.output.bytes());
    }

    /// Resets the stream at this place, which need not be told; `code` is what the client hears.
    fn reset_place(&mut self, place: usize, code: ErrorCode) {
        let Some(stream) = self.streams.peek(place).map(|stream| stream.id).filter(|id| *id != 0) else {
            return;
        };
        self.write_reset(stream, code);
        self.streams.reset(place, Ended::ResetHere);
        self.let_go_of_body(place);
    }

    /// The stream has ended before its time: whoever answers it is told, and nobody who has not begun does.
    fn cut_off(&mut self, place: usize) {
        self.let_go_of_body(place);
        if let Some(queued) = self.requests.iter().position(|asked| asked.place == place) {
            self.requests.remove(queued);
            self.free_place(place);
            return;
        }
        self.touched.push(place);
    }

    fn free_place(&mut self, place: usize) {
        let queued = self.streams.peek(place).is_some_and(|stream| stream.queued);
        if queued {
            self.line.retain(|other| *other != place);
        }
        self.streams.free(place);
    }

    /// How many bytes are held: of bodies, and of what has not come whole.
    #[cfg(test)]
    fn memory(&self) -> (usize, usize) {
        let block = self.block.as_ref().map_or(0, receive::Block::length);
        let bodies = self.streams.all().map(|stream| stream.held.len()).sum();
        (bodies, self.partial.len() + block)
    }
}
