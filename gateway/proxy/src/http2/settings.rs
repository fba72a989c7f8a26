//! SETTINGS: what is told to clients, and what they say.

use super::flow::{FIRST_WINDOW, MAX_WINDOW};
use super::frame::{self, ErrorCode, Kind};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// What clients are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How many streams a client may have open at a time.
    pub(crate) max_streams: u32,
    /// How much of a body may come before it is taken, in bytes: of one stream, and of the connection.
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    /// How large a head may be, in bytes.
    pub(crate) max_head_bytes: usize,
}

impl Settings {
    /// Appends the frames with which a connection begins.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let said = [
            (MAX_CONCURRENT_STREAMS, self.max_streams),
            (INITIAL_WINDOW_SIZE, self.stream_window),
            (MAX_HEADER_LIST_SIZE, u32::try_from(self.max_head_bytes).unwrap_or(u32::MAX)),
        ];
        let mut payload = Vec::with_capacity(18);
        for (name, value) in said {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        frame::write(Kind::Settings, 0, 0, &payload, out);
        let more = i64::from(self.connection_window) - FIRST_WINDOW;
        if let Ok(more @ 1..) = u32::try_from(more) {
            frame::write_number(Kind::WindowUpdate, 0, more, out);
        }
    }
}

/// What a client says of itself, of what matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    TableSize(usize),
    /// The window that each stream begins with, and how those of open ones change.
    StreamWindow(i64),
    Nothing,
}

/// Reads one setting.
///
/// # Errors
/// It has a value that it may not have.
pub(super) fn read(setting: [u8; 6]) -> Result<Said, ErrorCode> {
    let [n0, n1, v0, v1, v2, v3] = setting;
    let value = u32::from_be_bytes([v0, v1, v2, v3]);
    match u16::from_be_bytes([n0, n1]) {
        HEADER_TABLE_SIZE => Ok(Said::TableSize(value as usize)),
        INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => Err(ErrorCode::FlowControlError),
        INITIAL_WINDOW_SIZE => Ok(Said::StreamWindow(i64::from(value))),
        ENABLE_PUSH if value > 1 => Err(ErrorCode::ProtocolError),
        MAX_FRAME_SIZE if !(0x4000..=0xff_ffff).contains(&value) => Err(ErrorCode::ProtocolError),
        _ => Ok(Said::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_begins_with_what_is_not_usual() {
        let settings = Settings {
            max_streams: 7,
            stream_window: 65_536,
            connection_window: 1 << 20,
            max_head_bytes: 4096,
        };
        let mut out = Vec::new();
        settings.write(&mut out);
        let expected = [
            &[0, 0, 18, 4, 0, 0, 0, 0, 0][..],
            &[0, 3, 0, 0, 0, 7, 0, 4, 0, 1, 0, 0, 0, 6, 0, 0, 16, 0],
            &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 15, 0, 1],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn values_have_their_bounds() {
        assert_eq!(read([0, 1, 0, 0, 16, 0]), Ok(Said::TableSize(4096)));
        assert_eq!(read([0, 4, 0x7f, 0xff, 0xff, 0xff]), Ok(Said::StreamWindow(MAX_WINDOW)));
        assert_eq!(read([0, 4, 0x80, 0, 0, 0]), Err(ErrorCode::FlowControlError));
        assert_eq!(read([0, 2, 0, 0, 0, 1]), Ok(Said::Nothing));
        assert_eq!(read([0, 2, 0, 0, 0, 2]), Err(ErrorCode::ProtocolError));
        assert_eq!(read([0, 5, 0, 0, 0x3f, 0xff]), Err(ErrorCode::ProtocolError));
        assert_eq!(read([0, 5, 1, 0, 0, 0]), Err(ErrorCode::ProtocolError));
        assert_eq!(read([0xff, 0, 0, 0, 0, 0]), Ok(Said::Nothing), "unknown ones mean nothing");
    }
}
