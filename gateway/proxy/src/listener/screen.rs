//! Every head of an HTTP/1.1 client is screened from its raw bytes before hyper sees one of them.
//!
//! The screen stands between the socket and hyper. It holds the bytes of a head back until all of it is sound, hands it
//! over with its body, and looks at the next one. A head that is refused never reaches hyper: to hyper the client has
//! closed its direction, so it finishes what is in flight and closes, and the refusal goes out just before that.
//!
//! Bodies in chunks are read here to find their end, and more strictly than hyper does: what is no chunk ends the
//! connection for hyper, in the middle of the body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::client::Client;
use super::stream::Stream;
use crate::error::{Failure, Reason};
use crate::http1::chunked::Chunked;
use crate::http1::framing::Delimited;
use crate::http1::request::{HeadReader, Verdict};

/// How much is read from the socket at once while a head comes, in bytes: as much as hyper would, so that a body comes
/// in no more pieces.
const PIECE: usize = 8 * 1024;

/// What a connection's bytes are looked at with.
pub(super) struct Screen {
    reader: HeadReader,
    /// Bytes that have come and were not handed over.
    held: BytesMut,
    /// So many bytes that come next were found sound and are to be handed over.
    sound: u64,
    /// What follows after them.
    stage: Stage,
    /// How many heads were handed over.
    passed: u64,
    /// Whether hyper was told that nothing follows, because a head was refused.
    told: bool,
}

enum Stage {
    /// A head comes.
    Head,
    /// A body in chunks comes.
    Chunks(Chunked),
    /// All that follows is handed over.
    Open,
    /// A head was refused; what follows is not read.
    Refused(Option<Failure>),
    /// A body is malformed; what follows is not read. Its request answers for it.
    Broken,
}

impl Screen {
    /// Goes on with a connection, all of whose earlier requests have ended: `held` has come, and `reader` has read its
    /// first head, whose framing this is.
    pub(super) fn resume(held: BytesMut, reader: HeadReader, framing: Delimited) -> Self {
        let mut screen = Self { reader, held, sound: 0, stage: Stage::Head, passed: 0, told: false };
        screen.pass(framing);
        screen
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
            _ => None,
        }
    }

    /// Reads what hyper may have; nothing is the end. All requests that were handed over end before the refusal of one
    /// behind them is told.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        buffer: &mut ReadBuf<'_>,
        client: &Client,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.sound > 0 {
                return self.poll_sound(cx, stream, buffer);
            }
            match &mut self.stage {
                Stage::Head => ready!(self.read_head(cx, stream, client))?,
                Stage::Chunks(_) => ready!(self.read_chunks(cx, stream))?,
                Stage::Open => return hand_over(&mut self.held, cx, stream, buffer, u64::MAX).map_ok(|_| ()),
                // `Client::request_ended` wakes the task, and hyper asks again.
                Stage::Refused(_) if self.passed > client.ended() => return Poll::Pending,
                Stage::Refused(_) => {
                    self.told = true;
                    return Poll::Ready(Ok(()));
                }
                Stage::Broken => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_sound(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(hand_over(&mut self.held, cx, stream, buffer, self.sound))?;
        self.sound -= read;
        if self.sound > 0 && read > 0 && self.held.is_empty() && buffer.remaining() > 0 {
            // The rest of a body goes into the same buffer, if it has come.
            if let Poll::Ready(more) = hand_over(&mut self.held, cx, stream, buffer, self.sound) {
                self.sound -= more?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads on until a stage is reached in which something is to be handed over.
    fn read_head(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        client: &Client,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            self.reader.restart(client.head_limits());
        }
        loop {
            match self.reader.read(&self.held) {
                Verdict::Partial => {
                    if ready!(self.fill(cx, stream))? == 0 {
                        self.stage = Stage::Open;
                        return Poll::Ready(Ok(()));
                    }
                }
                Verdict::Ordinary(framing) | Verdict::ToHyper(framing) => {
                    self.pass(framing);
                    return Poll::Ready(Ok(()));
                }
                Verdict::Http2 => {
                    let failure = Failure::new(Reason::BadRequest, "HTTP/2 begins with a connection");
                    return self.refuse(failure);
                }
                Verdict::Refused(failure) => return self.refuse(failure),
            }
        }
    }

    /// The head that was read is sound, and what follows has this framing.
    fn pass(&mut self, framing: Delimited) {
        let head = self.reader.length() as u64;
        self.passed += 1;
        (self.sound, self.stage) = match framing {
            Delimited::None => (head, Stage::Head),
            Delimited::Length(length) => (head.saturating_add(length), Stage::Head),
            Delimited::Chunked => (head, Stage::Chunks(Chunked::new())),
        };
        self.reader.restart(self.reader.limits());
    }

    /// Reads on in a body until some of it can be handed over.
    fn read_chunks(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            let Stage::Chunks(chunked) = &mut self.stage else { return Poll::Ready(Ok(())) };
            match chunked.pass(&self.held) {
                Ok((0, false)) => {
                    if ready!(self.fill(cx, stream))? == 0 {
                        self.stage = Stage::Open;
                        return Poll::Ready(Ok(()));
                    }
                }
                Ok((sound, ended)) => {
                    self.sound = sound as u64;
                    if ended {
                        self.stage = Stage::Head;
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(_) => {
                    self.stage = Stage::Broken;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn fill(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
        self.held.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
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
    most: u64,
) -> Poll<io::Result<u64>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.remaining());
    if !held.is_empty() {
        let length = most.min(held.len());
        buffer.put_slice(&held[..length]);
        held.advance(length);
        return Poll::Ready(Ok(length as u64));
    }
    if most == buffer.remaining() {
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        return Poll::Ready(Ok((buffer.filled().len() - before) as u64));
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
    ready!(Pin::new(stream).poll_read(cx, &mut part))?;
    let length = part.filled().len();
    buffer.advance(length);
    Poll::Ready(Ok(length as u64))
}
