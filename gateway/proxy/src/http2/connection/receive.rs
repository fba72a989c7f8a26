//! What comes in: the preface, frames, and what is made of heads and bodies.

use super::super::flow::{ReceiveWindow, SendWindow};
use super::super::frame::{
    self, END_HEADERS, END_STREAM, ErrorCode, FrameHeader, HEADER, Kind, MAX_PAYLOAD, PADDED, PRIORITY,
};
use super::super::head::{Head, Rejected};
use super::super::stream::Ended;
use super::control::{calm, protocol, wrong_size};
use super::{Asked, Broken, Connection, Fault, Leaving, Stage};

/// With what every connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So many frames may a head have beside those that its limit fills.
const SPARE_CONTINUATIONS: usize = 4;

/// A DATA frame of which not all has come.
#[derive(Debug)]
pub(super) struct Payload {
    /// Where its data goes; nowhere, if nobody wants it.
    place: Option<usize>,
    stream: u32,
    /// How much of its data is to come, and how much padding behind that.
    data: usize,
    padding: usize,
    ends: bool,
}

/// A field block of which not all has come.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    /// Whether the stream may not begin as it says it does.
    depends_on_itself: bool,
    bytes: Vec<u8>,
    frames: usize,
}

#[cfg(test)]
impl Block {
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }
}

impl Connection {
    /// Takes what has come.
    ///
    /// # Errors
    /// The client has broken a rule that the connection does not survive. GOAWAY waits to be written, and nothing more
    /// is taken.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        if self.stage == Stage::Broken {
            return Ok(());
        }
        let taken = self.receive_all(&mut bytes);
        taken.map_err(|(code, message)| {
            self.stage = Stage::Broken;
            let last = match self.leaving {
                Leaving::Last(last) => last,
                Leaving::No | Leaving::Announced => self.last,
            };
            self.write_go_away(last, code);
            Broken { code, message }
        })
    }

    fn receive_all(&mut self, bytes: &mut &[u8]) -> Result<(), (ErrorCode, &'static str)> {
        if self.stage == Stage::Preface && !self.receive_preface(bytes)? {
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.data.is_some() {
                self.receive_data(bytes);
                continue;
            }
            if !self.partial.is_empty() {
                if !self.complete(bytes)? {
                    return Ok(());
                }
                continue;
            }
            let Some(header) = FrameHeader::read(bytes) else {
                self.partial.extend_from_slice(bytes);
                return Ok(());
            };
            self.check_header(header).or_else(|fault| self.settle(fault))?;
            let whole = if header.kind == Kind::Data { data_head(header) } else { HEADER + header.length };
            let Some((frame, rest)) = bytes.split_at_checked(whole) else {
                self.partial.extend_from_slice(bytes);
                return Ok(());
            };
            *bytes = rest;
            let payload = frame.get(HEADER..).unwrap_or_default();
            self.take_frame(header, payload).or_else(|fault| self.settle(fault))?;
        }
        self.end_data();
        Ok(())
    }

    /// Whether all of it has come.
    fn receive_preface(&mut self, bytes: &mut &[u8]) -> Result<bool, (ErrorCode, &'static str)> {
        let missing = PREFACE.get(self.partial.len()..).unwrap_or_default();
        let length = missing.len().min(bytes.len());
        let (begin, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
        if !missing.starts_with(begin) {
            return Err((ErrorCode::ProtocolError, "the connection does not begin as HTTP/2 does"));
        }
        *bytes = rest;
        if length < missing.len() {
            self.partial.extend_from_slice(begin);
            return Ok(false);
        }
        self.partial.clear();
        self.stage = Stage::Settings;
        Ok(true)
    }

    /// Goes on with a frame of which something has come; whether it is whole now.
    fn complete(&mut self, bytes: &mut &[u8]) -> Result<bool, (ErrorCode, &'static str)> {
        let mut partial = std::mem::take(&mut self.partial);
        if !fill(&mut partial, HEADER, bytes) {
            self.partial = partial;
            return Ok(false);
        }
        let Some(header) = FrameHeader::read(&partial) else { return Ok(true) };
        self.check_header(header).or_else(|fault| self.settle(fault))?;
        let whole = if header.kind == Kind::Data { data_head(header) } else { HEADER + header.length };
        let is_whole = fill(&mut partial, whole, bytes);
        if is_whole {
            let payload = partial.get(HEADER..).unwrap_or_default();
            self.take_frame(header, payload).or_else(|fault| self.settle(fault))?;
            partial.clear();
        }
        self.partial = partial;
        Ok(is_whole)
    }

    /// What can be said of a frame before its payload has come.
    fn check_header(&self, header: FrameHeader) -> Result<(), Fault> {
        if header.length > MAX_PAYLOAD {
            return Err(wrong_size("a frame is too large"));
        }
        if self.stage == Stage::Settings && (header.kind != Kind::Settings || header.has(frame::ACK)) {
            return Err(protocol("the first frame is not SETTINGS"));
        }
        if let Some(block) = &self.block
            && (header.kind != Kind::Continuation || header.stream != block.stream)
        {
            return Err(protocol("a head is interrupted"));
        }
        Ok(())
    }

    /// Ends what a fault ends; what is left of it is for the connection.
    fn settle(&mut self, fault: Fault) -> Result<(), (ErrorCode, &'static str)> {
        match fault {
            Fault::Connection(code, message) => Err((code, message)),
            Fault::Stream(stream, code) => {
                self.faults += u64::from(code != ErrorCode::RefusedStream);
                match self.streams.find(stream) {
                    Some(place) => {
                        self.reset_place(place, code);
                        self.cut_off(place);
                    }
                    None => {
                        self.write_reset(stream, code);
                        self.streams.pass_over(stream);
                    }
                }
                // Who does not know the limit yet does nothing wrong, and has requests in flight.
                let is_fine = if code == ErrorCode::RefusedStream && !self.is_known {
                    self.allowance.control(1, self.now)
                } else {
                    self.allowance.fault(self.now)
                };
                if is_fine {
                    Ok(())
                } else {
                    Err((ErrorCode::EnhanceYourCalm, "too many streams break the rules"))
                }
            }
        }
    }

    fn take_frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        match header.kind {
            Kind::Data => self.begin_data(header, payload),
            Kind::Headers => self.headers(header, payload),
            Kind::Continuation => self.continuation(header, payload),
            Kind::Settings => {
                self.stage = Stage::Open;
                self.settings(header, payload)
            }
            Kind::Priority => self.priority(header, payload),
            Kind::ResetStream => self.reset_stream(header, payload),
            Kind::Ping => self.ping(header, payload),
            Kind::GoAway => self.go_away(header, payload),
            Kind::WindowUpdate => self.window_update(header, payload),
            Kind::PushPromise => Err(protocol("a client cannot push")),
            Kind::Unknown => self.charge(1),
        }
    }

    // --- heads ---

    fn headers(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream == 0 {
            return Err(protocol("HEADERS are of a stream"));
        }
        let (mut fragment, _) = without_padding(header, payload)?;
        let mut depends_on_itself = false;
        if header.has(PRIORITY) {
            let (priority, rest) = fragment
                .split_at_checked(5)
                .ok_or_else(|| wrong_size("HEADERS are too short for a priority"))?;
            depends_on_itself = frame::number(priority).is_some_and(|on| on & 0x7fff_ffff == header.stream);
            fragment = rest;
        }
        let (stream, ends) = (header.stream, header.has(END_STREAM));
        if header.has(END_HEADERS) {
            return self.take_block(stream, ends, depends_on_itself, fragment);
        }
        self.block = Some(Block { stream, ends, depends_on_itself, bytes: fragment.to_vec(), frames: 0 });
        Ok(())
    }

    fn continuation(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        let Some(block) = &mut self.block else {
            return Err(protocol("CONTINUATION continues nothing"));
        };
        block.frames += 1;
        let most = self.limits.max_bytes;
        let frames = most.div_ceil(MAX_PAYLOAD) + SPARE_CONTINUATIONS;
        if block.frames > frames || block.bytes.len() + payload.len() > most + MAX_PAYLOAD {
            return Err(calm("a head has no end"));
        }
        block.bytes.extend_from_slice(payload);
        if !header.has(END_HEADERS) {
            return Ok(());
        }
        match self.block.take() {
            Some(block) => self.take_block(block.stream, block.ends, block.depends_on_itself, &block.bytes),
            None => Ok(()),
        }
    }

    /// All of a field block has come. Whatever becomes of it, it is read, for the sake of those behind it.
    fn take_block(
        &mut self,
        stream: u32,
        ends: bool,
        depends_on_itself: bool,
        block: &[u8],
    ) -> Result<(), Fault> {
        if stream.is_multiple_of(2) {
            return Err(protocol("a client's streams are odd"));
        }
        if stream <= self.last {
            return self.take_trailers(stream, ends, block);
        }
        self.last = stream;
        let mut head = Head::new(self.limits, self.spare.take(), false);
        self.decode(block, &mut head)?;
        if matches!(self.leaving, Leaving::Last(last) if stream > last) {
            // The client has been told that it must ask elsewhere.
            self.spare.give(head.into_headers());
            self.streams.pass_over(stream);
            return self.charge(1);
        }
        if depends_on_itself {
            self.spare.give(head.into_headers());
            return Err(Fault::Stream(stream, ErrorCode::ProtocolError));
        }
        let most = self.settings.max_streams as usize;
        if self.streams.active >= most || self.streams.taken() >= most.saturating_mul(2) {
            self.spare.give(head.into_headers());
            return Err(Fault::Stream(stream, ErrorCode::RefusedStream));
        }
        self.begin(stream, ends, head)
    }

    fn begin(&mut self, id: u32, ends: bool, head: Head) -> Result<(), Fault> {
        let (head, length) = match head.finish() {
            Ok((parts, length)) => (Ok(parts), length),
            Err(Rejected::Refused(failure)) => (Err(failure), None),
            Err(Rejected::Malformed) => return Err(Fault::Stream(id, ErrorCode::ProtocolError)),
        };
        if ends && length.is_some_and(|length| length > 0) {
            return Err(Fault::Stream(id, ErrorCode::ProtocolError));
        }
        let receive = ReceiveWindow::new(self.settings.stream_window);
        let place = self.streams.open(id, SendWindow::new(self.first_window), receive);
        if let Some(stream) = self.streams.at(place) {
            stream.received = ends;
            stream.left = length;
        }
        let body = (!ends).then_some(length);
        self.requests.push_back(Asked { place, stream: id, head, body });
        Ok(())
    }

    /// A second head on a stream: its trailers, or something that must not be.
    fn take_trailers(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Fault> {
        let mut head = Head::new(self.limits, http::HeaderMap::new(), true);
        self.decode(block, &mut head)?;
        let Some(place) = self.streams.find(id) else {
            return match self.streams.ended(id) {
                Some(Ended::ResetHere) => self.charge(1),
                Some(Ended::Closed) => {
                    Err(Fault::Connection(ErrorCode::StreamClosed, "a head comes on a stream that has ended"))
                }
                None => Err(protocol("the streams of a client have rising numbers")),
            };
        };
        let Some(stream) = self.streams.at(place) else { return Ok(()) };
        if stream.received {
            return Err(Fault::Stream(id, ErrorCode::StreamClosed));
        }
        let malformed = Fault::Stream(id, ErrorCode::ProtocolError);
        let trailers = head.into_trailers().ok_or(malformed)?;
        if !ends || stream.left.is_some_and(|left| left > 0) {
            return Err(malformed);
        }
        stream.received = true;
        stream.trailers = (stream.wanted && !trailers.is_empty()).then(|| Box::new(trailers));
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn decode(&mut self, block: &[u8], head: &mut Head) -> Result<(), Fault> {
        let decoded = self.decoder.decode(block, head);
        decoded.map_err(|_| Fault::Connection(ErrorCode::CompressionError, "a head is no HPACK"))
    }

    // --- bodies ---

    /// The beginning of a DATA frame has come: its header, and how much padding it has.
    fn begin_data(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        self.not_idle(header.stream)?;
        let received = self.receive.received(header.length);
        received.map_err(|code| Fault::Connection(code, "more has come than the connection's window"))?;
        if header.has(PADDED) && payload.is_empty() {
            return Err(wrong_size("there is no room for padding"));
        }
        let around = payload.len();
        let padding = payload.first().map_or(0, |length| usize::from(*length));
        let Some(data) = (header.length - around).checked_sub(padding) else {
            return Err(protocol("a frame has more padding than payload"));
        };
        let ends = header.has(END_STREAM);
        // Whatever comes of it, the payload has to be passed over.
        self.data = Some(Payload { place: None, stream: header.stream, data, padding, ends });
        self.give_back(None, around + padding);
        if data == 0 && !ends {
            if !self.allowance.empty(self.now) {
                return Err(calm("too many frames are empty"));
            }
        } else {
            self.allowance.received();
        }
        let Some(place) = self.streams.find(header.stream) else {
            return match self.streams.ended(header.stream) {
                // With data, its window keeps it in bounds.
                Some(Ended::ResetHere) if data > 0 => Ok(()),
                Some(Ended::ResetHere) => self.charge(1),
                Some(Ended::Closed) | None => Err(Fault::Stream(header.stream, ErrorCode::StreamClosed)),
            };
        };
        let Some(stream) = self.streams.at(place) else { return Ok(()) };
        if stream.received {
            return Err(Fault::Stream(header.stream, ErrorCode::StreamClosed));
        }
        stream.receive.received(header.length).map_err(|code| Fault::Stream(header.stream, code))?;
        if let Some(left) = &mut stream.left {
            // RFC 9113 section 8.1.1.
            match left.checked_sub(data as u64) {
                Some(still) if still == 0 || !ends => *left = still,
                _ => return Err(Fault::Stream(header.stream, ErrorCode::ProtocolError)),
            }
        }
        if let Some(more) = stream.receive.take(around + padding).filter(|_| !ends) {
            frame::write_number(Kind::WindowUpdate, header.stream, more, self.output.bytes());
        }
        if let Some(payload) = &mut self.data {
            payload.place = Some(place);
        }
        Ok(())
    }

    /// Takes what has come of a DATA frame's payload.
    fn receive_data(&mut self, bytes: &mut &[u8]) {
        let Some(payload) = &mut self.data else { return };
        let (data, rest) = bytes.split_at_checked(payload.data).unwrap_or((bytes, &[]));
        payload.data -= data.len();
        let (padding, rest) = rest.split_at_checked(payload.padding).unwrap_or((rest, &[]));
        payload.padding -= padding.len();
        *bytes = rest;
        let (place, id) = (payload.place, payload.stream);
        let stream = place.and_then(|place| self.streams.at(place));
        match stream.filter(|stream| stream.id == id && stream.wanted) {
            Some(stream) => {
                stream.held.extend_from_slice(data);
                if let Some(reader) = stream.reader.take_if(|_| !data.is_empty()) {
                    reader.wake();
                }
            }
            None => self.give_back(None, data.len()),
        }
        self.end_data();
    }

    /// The frame ends, if all of it has come.
    fn end_data(&mut self) {
        let Some(Payload { place, stream: id, ends, .. }) =
            self.data.take_if(|payload| payload.data == 0 && payload.padding == 0)
        else {
            return;
        };
        let stream = place.filter(|_| ends).and_then(|place| self.streams.at(place));
        if let Some(stream) = stream.filter(|stream| stream.id == id) {
            stream.received = true;
            if let Some(reader) = stream.reader.take() {
                reader.wake();
            }
        }
    }
}

/// How much of a DATA frame must have come before it can be begun with.
fn data_head(header: FrameHeader) -> usize {
    HEADER + usize::from(header.has(PADDED) && header.length > 0)
}

/// Fills up from what has come until there is so much; whether there is.
fn fill(partial: &mut Vec<u8>, length: usize, bytes: &mut &[u8]) -> bool {
    let missing = length.saturating_sub(partial.len());
    let (begin, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
    partial.extend_from_slice(begin);
    *bytes = rest;
    partial.len() >= length
}

/// The payload without its padding, and how much that is with its length.
fn without_padding(header: FrameHeader, payload: &[u8]) -> Result<(&[u8], usize), Fault> {
    if !header.has(PADDED) {
        return Ok((payload, 0));
    }
    let (length, rest) = payload.split_first().ok_or_else(|| wrong_size("there is no room for padding"))?;
    let padding = usize::from(*length);
    let kept = rest.len().checked_sub(padding).and_then(|length| rest.get(..length));
    Ok((kept.ok_or_else(|| protocol("a frame has more padding than payload"))?, padding + 1))
}
