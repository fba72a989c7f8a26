//! Every head of an HTTP/1.1 client is screened from its raw bytes before hyper sees one of them.
//!
//! The screen stands between the socket and hyper. It holds the bytes of a head back until all of it is sound, hands it
//! over with its body, and looks at the next one. A head that is refused never reaches hyper: to hyper the client has
//! closed its direction, so it finishes what is in flight and closes, and the refusal goes out just before that.
//!
//! After a request whose body comes in chunks the rest of the connection passes unscreened, because the screen does not
//! read chunks and so cannot tell where the next head begins; hyper's own checks and the handler's remain.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::stream::Stream;
use crate::error::{Failure, Reason};
use crate::http1::request::{Framing, HeadReader, Limits, Verdict};

/// How much is read from the socket at once while a head comes, in bytes: as much as hyper would, so that a body comes
/// in no more pieces.
const PIECE: usize = 8 * 1024;

/// What a connection's bytes are looked at with.
pub(super) struct Screen {
    reader: HeadReader,
    /// Bytes that have come and were not handed over.
    held: BytesMut,
    stage: Stage,
    /// How many heads were handed over.
    passed: u64,
    /// Whether hyper was told that nothing follows, because a head was refused.
    told: bool,
}

enum Stage {
    /// A head comes.
    Head,
    /// So many bytes of a request are still to be handed over.
    Pass(u64),
    /// All that follows is handed over.
    Open,
    /// A head was refused; what follows is not read.
    Refused(Option<Failure>),
}

impl Screen {
    /// Begins with what has been read of a connection.
    pub(super) fn new(limits: Limits, held: BytesMut) -> Self {
        Self { reader: HeadReader::new(limits), held, stage: Stage::Head, passed: 0, told: false }
    }

    /// Lets everything pass: it is no HTTP/1.1.
    pub(super) fn open(&mut self) {
        self.stage = Stage::Open;
    }

    /// How many bytes are held back.
    pub(super) fn holds(&self) -> usize {
        self.held.len()
    }

    /// Whether a head was refused.
    pub(super) fn has_refused(&self) -> bool {
        matches!(self.stage, Stage::Refused(_))
    }

    /// Why a head was refused, once.
    pub(super) fn take_refusal(&mut self) -> Option<Failure> {
        match &mut self.stage {
            Stage::Refused(failure) if self.told => failure.take(),
            Stage::Refused(_) | Stage::Head | Stage::Pass(_) | Stage::Open => None,
        }
    }

    /// Reads what hyper may have; nothing is the end. `ended` tells how many requests have ended: all that
    /// were handed over do before the refusal of one behind them is told.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        buffer: &mut ReadBuf<'_>,
        ended: u64,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Head => ready!(self.read_head(cx, stream))?,
                Stage::Pass(0) => {
                    self.reader.restart();
                    self.stage = Stage::Head;
                }
                Stage::Pass(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let read = ready!(hand_over(&mut self.held, cx, stream, buffer, most))?;
                    *left -= read as u64;
                    if *left > 0 && read > 0 && self.held.is_empty() && buffer.remaining() > 0 {
                        // The rest of a body goes into the same buffer, if it has come.
                        let most = usize::try_from(*left).unwrap_or(usize::MAX);
                        if let Poll::Ready(more) = hand_over(&mut self.held, cx, stream, buffer, most) {
                            *left -= more? as u64;
                        }
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Open => {
                    return hand_over(&mut self.held, cx, stream, buffer, usize::MAX).map_ok(|_| ());
                }
                // `Client::request_ended` wakes the task, and hyper asks again.
                Stage::Refused(_) if self.passed > ended => return Poll::Pending,
                Stage::Refused(_) => {
                    self.told = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Reads on until a stage is reached in which something is to be handed over.
    fn read_head(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            let framing = match self.reader.read(&self.held) {
                Verdict::Partial => {
                    let mut piece = [0; PIECE];
                    let mut piece = ReadBuf::new(&mut piece);
                    ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
                    if piece.filled().is_empty() {
                        self.stage = Stage::Open;
                        return Poll::Ready(Ok(()));
                    }
                    self.held.extend_from_slice(piece.filled());
                    continue;
                }
                Verdict::Ordinary(framing) | Verdict::ToHyper(framing) => framing,
                Verdict::Http2 => {
                    let failure = Failure::new(Reason::BadRequest, "HTTP/2 begins with a connection");
                    return self.refuse(failure);
                }
                Verdict::Refused(failure) => return self.refuse(failure),
            };
            let head = self.reader.length() as u64;
            self.passed += 1;
            self.stage = match framing {
                Framing::None => Stage::Pass(head),
                Framing::Length(length) => Stage::Pass(head.saturating_add(length)),
                Framing::Chunked => Stage::Open,
            };
            return Poll::Ready(Ok(()));
        }
    }

    fn refuse(&mut self, failure: Failure) -> Poll<io::Result<()>> {
        drop(mem::take(&mut self.held));
        self.stage = Stage::Refused(Some(failure));
        Poll::Ready(Ok(()))
    }
}

/// Hands over held bytes, or, if there are none, what comes from the socket: `most` bytes at most. How many.
fn hand_over(
    held: &mut BytesMut,
    cx: &mut Context<'_>,
    stream: &mut Stream,
    buffer: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<usize>> {
    let most = most.min(buffer.remaining());
    if !held.is_empty() {
        let length = most.min(held.len());
        buffer.put_slice(&held[..length]);
        held.advance(length);
        return Poll::Ready(Ok(length));
    }
    if most == buffer.remaining() {
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        return Poll::Ready(Ok(buffer.filled().len() - before));
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
    ready!(Pin::new(stream).poll_read(cx, &mut part))?;
    let length = part.filled().len();
    buffer.advance(length);
    Poll::Ready(Ok(length))
}
