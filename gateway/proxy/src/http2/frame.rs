//! Frames: their headers, and the words of the protocol.

/// The length of a frame's header, in bytes.
pub(crate) const HEADER: usize = 9;
/// The longest payload that is taken, and the longest that is sent, in bytes: the least that every peer takes.
pub(crate) const MAX_PAYLOAD: usize = 16 * 1024;

/// The last frame of a direction of a stream.
pub(crate) const END_STREAM: u8 = 0x1;
/// The answer to SETTINGS or PING.
pub(crate) const ACK: u8 = 0x1;
/// The last frame of a field block.
pub(crate) const END_HEADERS: u8 = 0x4;
/// Padding comes with the payload.
pub(crate) const PADDED: u8 = 0x8;
/// The fields of a priority come with the payload.
pub(crate) const PRIORITY: u8 = 0x20;

/// What kind of frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// One that is not known, and has no meaning.
    Unknown,
}

/// Why a stream or a connection ends (RFC 9113 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ErrorCode {
    NoError = 0x0,
    ProtocolError = 0x1,
    InternalError = 0x2,
    FlowControlError = 0x3,
    StreamClosed = 0x5,
    FrameSizeError = 0x6,
    RefusedStream = 0x7,
    CompressionError = 0x9,
    EnhanceYourCalm = 0xb,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// The length of the payload, in bytes.
    pub(crate) length: usize,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// The stream it is for; 0 is the connection.
    pub(crate) stream: u32,
}

impl FrameHeader {
    /// Reads the header at the beginning of these bytes; nothing, if it has not come whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        Some(Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind: Kind::from(kind),
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        })
    }

    /// Whether this flag is set.
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::ResetStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

impl Kind {
    fn number(self) -> u8 {
        self as u8
    }
}

/// The bytes of a frame's header. A length beyond 24 bits cannot be said; nothing here is as long.
pub(crate) fn header(length: usize, kind: Kind, flags: u8, stream: u32) -> [u8; HEADER] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let [_, l0, l1, l2] = length.to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [l0, l1, l2, kind.number(), flags, s0, s1, s2, s3]
}

/// Appends a frame.
pub(crate) fn write(kind: Kind, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&header(payload.len(), kind, flags, stream));
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload is one number.
pub(crate) fn write_number(kind: Kind, stream: u32, number: u32, out: &mut Vec<u8>) {
    write(kind, 0, stream, &number.to_be_bytes(), out);
}

/// The number that a payload begins with.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for (kind, flags, stream) in [(Kind::Data, 9, 1), (Kind::Continuation, 4, 0x7fff_ffff)] {
            let header = header(0x0001_0203, kind, flags, stream);
            let read = FrameHeader::read(&header).unwrap();
            assert_eq!(read, FrameHeader { length: 0x0001_0203, kind, flags, stream });
            assert_eq!(FrameHeader::read(&header[..8]), None);
        }
        let reserved = FrameHeader::read(&[0, 0, 0, 77, 0, 0x80, 0, 0, 1]).unwrap();
        assert_eq!(
            (reserved.stream, reserved.kind),
            (1, Kind::Unknown),
            "the first bit of a stream is nothing"
        );
    }

    #[test]
    fn frames_are_written_whole() {
        let mut out = Vec::new();
        write_number(Kind::WindowUpdate, 3, 0x0102_0304, &mut out);
        assert_eq!(out, [0, 0, 4, 8, 0, 0, 0, 0, 3, 1, 2, 3, 4]);
        assert_eq!(number(&out[HEADER..]), Some(0x0102_0304));
        assert_eq!(number(&[1, 2, 3]), None);
    }
}
