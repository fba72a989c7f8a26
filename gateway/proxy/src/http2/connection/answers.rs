//! Answers, as they go out.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::super::frame::{self, END_HEADERS, END_STREAM, ErrorCode, HEADER, Kind, MAX_PAYLOAD};
use super::super::hpack::Lacking;
use super::super::stream::{Ended, Rest};
use super::Connection;

/// How far a piece of a body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All of it has been taken.
    Whole,
    /// There is no room for the rest. The place is told when there is.
    Waits,
    /// The stream has ended, and nobody wants it.
    Reset,
}

impl Connection {
    /// Whether the stream at this place has ended before its time.
    pub(crate) fn is_reset(&self, place: usize) -> bool {
        self.streams.peek(place).is_none_or(|stream| stream.reset)
    }

    /// Says the head of an answer, with what it lacks; `ends` tells that it is all of it.
    pub(crate) fn send_head(
        &mut self,
        place: usize,
        status: StatusCode,
        fields: &HeaderMap,
        lacking: &Lacking,
        ends: bool,
    ) {
        self.send_block(place, Some((status, lacking)), fields, ends);
    }

    /// Says that the client may go on with its request.
    pub(crate) fn send_continue(&mut self, place: usize) {
        let lacking = Lacking::default();
        self.send_block(place, Some((StatusCode::CONTINUE, &lacking)), &HeaderMap::new(), false);
    }

    /// Says the end of an answer that has trailers.
    pub(crate) fn send_trailers(&mut self, place: usize, trailers: &HeaderMap) {
        self.send_block(place, None, trailers, true);
    }

    /// Says a piece of an answer's body, as much of it as there is room for, and takes that away from it; `ends` tells
    /// that nothing follows the piece.
    pub(crate) fn send_data(&mut self, place: usize, piece: &mut Bytes, ends: bool) -> Sent {
        loop {
            let Some(stream) = self.streams.at(place).filter(|stream| !stream.reset) else {
                return Sent::Reset;
            };
            let mut length = piece.len().min(MAX_PAYLOAD);
            if length > 0 {
                let room = self.send.room().min(stream.send.room());
                if ends && stream.rest == Rest::Goes {
                    stream.rest = Rest::Waits;
                }
                if stream.send.room() == 0 {
                    stream.starved = true;
                    return Sent::Waits;
                }
                if room == 0 || !self.output.has_room() {
                    if !std::mem::replace(&mut stream.queued, true) {
                        self.line.push_back(place);
                    }
                    return Sent::Waits;
                }
                length = length.min(room);
                stream.rest = Rest::Goes;
            } else if !ends {
                return Sent::Whole;
            }
            let is_last = ends && length == piece.len();
            stream.sent |= is_last;
            stream.send.sent(length);
            self.send.sent(length);
            self.allowance.sent(length);
            let flags = if is_last { END_STREAM } else { 0 };
            let Some(data) = piece.get(..length) else { return Sent::Whole };
            frame::write(Kind::Data, flags, stream.id, data, self.output.bytes());
            piece.advance(length);
            if is_last {
                return Sent::Whole;
            }
        }
    }

    /// Resets streams of whose answer nothing is missing, and of which the client has taken nothing for so long since
    /// that was noticed here. Nobody else watches over them: what they came from is done. Whether there were some.
    pub(crate) fn reset_stuck(&mut self, now: Instant, patience: Duration) -> bool {
        let mut stuck = Vec::new();
        for (place, stream) in self.streams.open_ones() {
            match stream.rest {
                Rest::Waits => stream.rest = Rest::Stuck(now),
                Rest::Stuck(since) if now.saturating_duration_since(since) >= patience => stuck.push(place),
                Rest::Goes | Rest::Stuck(_) => {}
            }
        }
        for place in &stuck {
            self.reset_place(*place, ErrorCode::InternalError);
            self.touched.push(*place);
        }
        !stuck.is_empty()
    }

    /// Ends the stream before its time, for a reason that is not the client's.
    pub(crate) fn send_reset(&mut self, place: usize, code: ErrorCode) {
        self.reset_place(place, code);
    }

    /// Nobody answers this stream any more. What the client still sends of its request is not wanted.
    pub(crate) fn free(&mut self, place: usize) {
        let Some(stream) = self.streams.peek(place) else { return };
        if stream.sent {
            self.allowance.answered();
        }
        if stream.id != 0 && !(stream.sent && stream.received) {
            // RFC 9113 section 8.1: the answer is whole, and the rest of the request is not needed for it.
            let code = if stream.sent { ErrorCode::NoError } else { ErrorCode::InternalError };
            self.write_reset(stream.id, code);
            self.streams.reset(place, Ended::ResetHere);
        }
        self.let_go_of_body(place);
        self.free_place(place);
    }

    /// Writes a field block: into the frame that was begun for it, and cut into several if it is too long for one.
    fn send_block(
        &mut self,
        place: usize,
        head: Option<(StatusCode, &Lacking)>,
        fields: &HeaderMap,
        ends: bool,
    ) {
        let Some(stream) = self.streams.at(place).filter(|stream| !stream.reset) else { return };
        stream.sent |= ends;
        let id = stream.id;
        let out = self.output.bytes();
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER]);
        match head {
            Some((status, lacking)) => self.encoder.head(status, fields, lacking, out),
            None => self.encoder.trailers(fields, out),
        }
        let length = out.len() - begin - HEADER;
        let ends = if ends { END_STREAM } else { 0 };
        let (first, last) = if length <= MAX_PAYLOAD { (length, END_HEADERS) } else { (MAX_PAYLOAD, 0) };
        let header = frame::header(first, Kind::Headers, ends | last, id);
        if let Some(place) = out.get_mut(begin..begin + HEADER) {
            place.copy_from_slice(&header);
        }
        if length > MAX_PAYLOAD {
            let rest = out.split_off(begin + HEADER + MAX_PAYLOAD);
            let mut pieces = rest.chunks(MAX_PAYLOAD).peekable();
            while let Some(piece) = pieces.next() {
                let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
                frame::write(Kind::Continuation, flags, id, piece, out);
            }
        }
    }
}
