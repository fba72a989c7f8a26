//! Frames that are not of a request: settings, windows, priorities, resets, and the rest.

use super::super::flow::MAX_WINDOW;
use super::super::frame::{self, ACK, ErrorCode, FrameHeader, Kind};
use super::super::settings::{self, Said};
use super::super::stream::Ended;
use super::{Connection, Fault, GOING_AWAY, Leaving};

/// What SETTINGS take of the allowance: they are answered, and are seldom.
const SETTINGS_COST: u32 = 20;

impl Connection {
    pub(super) fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(protocol("SETTINGS are of a connection"));
        }
        if header.has(ACK) {
            return if payload.is_empty() {
                self.is_known = true;
                self.charge(1)
            } else {
                Err(wrong_size("SETTINGS with ACK have no payload"))
            };
        }
        let (all, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(wrong_size("SETTINGS have six bytes each"));
        }
        self.charge(SETTINGS_COST + (all.len() / 8) as u32)?;
        for setting in all {
            let said = settings::read(*setting);
            match said.map_err(|code| Fault::Connection(code, "a setting has no such value"))? {
                Said::TableSize(size) => self.encoder.resize(size),
                Said::StreamWindow(size) => self.resize_windows(size)?,
                Said::Nothing => {}
            }
        }
        frame::write(Kind::Settings, ACK, 0, &[], self.output.bytes());
        Ok(())
    }

    fn resize_windows(&mut self, size: i64) -> Result<(), Fault> {
        let change = size - self.first_window;
        self.first_window = size;
        for (place, stream) in self.streams.open_ones() {
            let changed = stream.send.change(change);
            changed.map_err(|code| Fault::Connection(code, "a window is too large"))?;
            if stream.send.room() > 0 && std::mem::take(&mut stream.starved) && !stream.queued {
                stream.queued = true;
                self.line.push_back(place);
            }
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        let more =
            number_of(payload).ok_or_else(|| wrong_size("WINDOW_UPDATE has four bytes"))? & 0x7fff_ffff;
        self.charge(1)?;
        if header.stream == 0 {
            if more == 0 {
                return Err(protocol("WINDOW_UPDATE says nothing"));
            }
            let changed = self.send.change(i64::from(more));
            return changed
                .map_err(|code| Fault::Connection(code, "the window of the connection is too large"));
        }
        self.not_idle(header.stream)?;
        if more == 0 {
            // Also on a stream that has just ended, as the client may not know yet.
            return Err(Fault::Stream(header.stream, ErrorCode::ProtocolError));
        }
        let Some(place) = self.streams.find(header.stream) else { return Ok(()) };
        let Some(stream) = self.streams.at(place) else { return Ok(()) };
        debug_assert!(i64::from(more) <= MAX_WINDOW, "one bit was taken off");
        stream.send.change(i64::from(more)).map_err(|code| Fault::Stream(header.stream, code))?;
        if stream.send.room() > 0 && std::mem::take(&mut stream.starved) && !stream.queued {
            stream.queued = true;
            self.line.push_back(place);
        }
        Ok(())
    }

    pub(super) fn ping(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(protocol("PING is of a connection"));
        }
        if payload.len() != 8 {
            return Err(wrong_size("PING has eight bytes"));
        }
        if header.has(ACK) {
            if payload == GOING_AWAY && self.leaving == Leaving::Announced {
                self.leave_for_good();
                return Ok(());
            }
            return self.charge(1);
        }
        self.charge(1)?;
        frame::write(Kind::Ping, ACK, 0, payload, self.output.bytes());
        Ok(())
    }

    /// Priorities mean nothing here, but have rules.
    pub(super) fn priority(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream == 0 {
            return Err(protocol("PRIORITY is of a stream"));
        }
        self.charge(1)?;
        if payload.len() != 5 {
            return Err(self.stream_fault(
                header.stream,
                ErrorCode::FrameSizeError,
                "PRIORITY has five bytes",
            ));
        }
        if frame::number(payload).is_some_and(|on| on & 0x7fff_ffff == header.stream) {
            return Err(self.stream_fault(
                header.stream,
                ErrorCode::ProtocolError,
                "a stream depends on itself",
            ));
        }
        Ok(())
    }

    pub(super) fn reset_stream(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if number_of(payload).is_none() {
            return Err(wrong_size("RST_STREAM has four bytes"));
        }
        self.not_idle(header.stream)?;
        let Some(place) = self.streams.find(header.stream) else { return self.charge(1) };
        self.streams.reset(place, Ended::Closed);
        self.cut_off(place);
        if self.allowance.cancelled(self.now) { Ok(()) } else { Err(calm("too many requests are cancelled")) }
    }

    pub(super) fn go_away(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(protocol("GOAWAY is of a connection"));
        }
        if payload.len() < 8 {
            return Err(wrong_size("GOAWAY has eight bytes or more"));
        }
        // It is about streams from here, of which there are none; what the client has asked is answered.
        self.charge(1)
    }

    pub(super) fn charge(&mut self, cost: u32) -> Result<(), Fault> {
        if self.allowance.control(cost, self.now) { Ok(()) } else { Err(calm("too many frames say nothing")) }
    }

    /// Nothing but a head may be said on a stream that has not begun.
    pub(super) fn not_idle(&self, stream: u32) -> Result<(), Fault> {
        match stream {
            0 => Err(protocol("the frame is of a stream")),
            _ if stream > self.last || stream.is_multiple_of(2) => Err(protocol("the stream has not begun")),
            _ => Ok(()),
        }
    }

    /// What is wrong on a stream ends the connection if the stream is not there to be ended.
    fn stream_fault(&self, stream: u32, code: ErrorCode, message: &'static str) -> Fault {
        match self.streams.find(stream) {
            Some(_) => Fault::Stream(stream, code),
            None => Fault::Connection(code, message),
        }
    }
}

fn number_of(payload: &[u8]) -> Option<u32> {
    (payload.len() == 4).then(|| frame::number(payload)).flatten()
}

pub(super) fn protocol(message: &'static str) -> Fault {
    Fault::Connection(ErrorCode::ProtocolError, message)
}

pub(super) fn wrong_size(message: &'static str) -> Fault {
    Fault::Connection(ErrorCode::FrameSizeError, message)
}

pub(super) fn calm(message: &'static str) -> Fault {
    Fault::Connection(ErrorCode::EnhanceYourCalm, message)
}
