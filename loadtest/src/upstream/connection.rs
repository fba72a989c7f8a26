//! One connection: requests in, answers out.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::End;
use super::answer::{Answer, Answerer, Asked, Payload, may_have_body};
use super::request::{Body, Framing, Head};

/// The room for heads, and what is read at once of them.
const ROOM: usize = 16 << 10;
/// The longest head that is read.
const LONGEST_HEAD: usize = 64 << 10;
/// How much of a body is read at once.
const SCRATCH: usize = 256 << 10;
/// How much of a large answer is written at once, at most.
const PIECE: usize = 1 << 20;
/// Answers up to this size are copied behind their heads.
const SMALL: u64 = 4 << 10;

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    answerer: Answerer,
    /// Bodies of requests are read into this, one after the other.
    scratch: RefCell<Vec<u8>>,
    /// Bodies of answers are written from this.
    dots: Vec<u8>,
}

/// Why a connection ends before its time.
#[derive(Debug)]
enum Over {
    /// It was closed or broke.
    Gone,
    /// This is no request.
    Refused,
}

struct Connection {
    stream: TcpStream,
    shared: Rc<Shared>,
    local: SocketAddr,
    /// What was read and not used yet.
    buffer: Vec<u8>,
    /// Heads are made in this.
    out: Vec<u8>,
}

/// One request, as far as it is needed once its head is used.
struct Request {
    asked: Asked,
    framing: Framing,
    is_head: bool,
}

impl Shared {
    pub(super) fn new(answerer: Answerer) -> Rc<Self> {
        Rc::new(Self { answerer, scratch: RefCell::new(vec![0; SCRATCH]), dots: vec![b'.'; PIECE] })
    }
}

/// Serves a connection until it ends; when the server is to finish, until its answer is written.
pub(super) async fn serve(stream: TcpStream, shared: Rc<Shared>, ends: watch::Receiver<End>) {
    // An answer is one write; without this its last segment may wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(local) = stream.local_addr() else { return };
    let (buffer, out) = (Vec::with_capacity(ROOM), Vec::with_capacity(ROOM));
    let mut connection = Connection { stream, shared, local, buffer, out };
    // The connection is closed with it, whatever is wrong.
    drop(connection.serve(ends).await);
}

/// Returns when the server is to finish. A kill is not waited for here: it drops this task.
async fn finishing(mut ends: watch::Receiver<End>) {
    if ends.wait_for(|end| *end == End::Finish).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Connection {
    async fn serve(&mut self, ends: watch::Receiver<End>) -> Result<(), Over> {
        let mut finishing = pin!(finishing(ends.clone()));
        loop {
            let request = match self.head() {
                Ok(None) if self.buffer.is_empty() => {
                    // Only an idle connection ends at once.
                    tokio::select! {
                        biased;
                        more = self.more() => more?,
                        () = finishing.as_mut() => return self.close().await,
                    }
                    continue;
                }
                Ok(None) => {
                    self.more().await?;
                    continue;
                }
                Ok(Some(request)) => request,
                Err(Over::Refused) => return self.refuse().await,
                Err(gone) => return Err(gone),
            };
            let received = match self.body(request.framing).await {
                Ok(received) => received,
                Err(Over::Refused) => return self.refuse().await,
                Err(gone) => return Err(gone),
            };
            let answer = self.answer(request.asked, received).await?;
            // It may have been told to finish while it waited.
            let keep = request.framing.keep && *ends.borrow() == End::NotYet;
            match answer {
                Answer::Whole(status, payload) => self.write(status, &payload, request.is_head, keep).await?,
                Answer::Cut(payload) => return self.cut(&payload).await,
                Answer::Reset => return self.reset(),
                Answer::Nothing => return self.wait(None).await,
            }
            if !keep {
                return self.close().await;
            }
        }
    }

    /// The next request whose head is there, taken out of the buffer.
    fn head(&mut self) -> Result<Option<Request>, Over> {
        let parsed = Head::parse(&self.buffer).map_err(|_| Over::Refused)?;
        let Some((head, length)) = parsed else {
            let too_long = self.buffer.len() > LONGEST_HEAD;
            return if too_long { Err(Over::Refused) } else { Ok(None) };
        };
        let request = Request {
            asked: Asked::by(&head, self.local),
            framing: head.framing,
            is_head: head.method == "HEAD",
        };
        self.buffer.drain(..length);
        Ok(Some(request))
    }

    /// Reads more into the buffer.
    async fn more(&mut self) -> Result<(), Over> {
        if self.buffer.capacity() - self.buffer.len() < ROOM / 4 {
            self.buffer.reserve(ROOM);
        }
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            _ => Err(Over::Gone),
        }
    }

    /// Reads the body and drops it; gives how long its content was.
    async fn body(&mut self, framing: Framing) -> Result<u64, Over> {
        let Framing { mut body, expects_continue, .. } = framing;
        let mut received = 0;
        self.take(&mut body, &mut received)?;
        if expects_continue && !body.is_over() && self.buffer.is_empty() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| Over::Gone)?;
        }
        while !body.is_over() {
            self.read_over(&mut body, &mut received).await?;
        }
        Ok(received)
    }

    /// What of the body is in the buffer already.
    fn take(&mut self, body: &mut Body, received: &mut u64) -> Result<(), Over> {
        if body.is_over() || self.buffer.is_empty() {
            return Ok(());
        }
        let taken = body.feed(&self.buffer, received).map_err(|_| Over::Refused)?;
        self.buffer.drain(..taken);
        Ok(())
    }

    /// Reads once; what belongs to the next request goes into the buffer.
    async fn read_over(&mut self, body: &mut Body, received: &mut u64) -> Result<(), Over> {
        let Self { stream, shared, buffer, .. } = self;
        poll_fn(|cx| {
            let mut scratch = shared.scratch.borrow_mut();
            let room =
                body.at_most().map_or(SCRATCH, |left| SCRATCH.min(usize::try_from(left).unwrap_or(SCRATCH)));
            let mut read = ReadBuf::new(&mut scratch[..room]);
            Pin::new(&mut *stream).poll_read(cx, &mut read).map(|done| {
                done.map_err(|_| Over::Gone)?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    return Err(Over::Gone);
                }
                let taken = body.feed(bytes, received).map_err(|_| Over::Refused)?;
                buffer.extend_from_slice(&bytes[taken..]);
                Ok(())
            })
        })
        .await
    }

    async fn answer(&mut self, asked: Asked, received: u64) -> Result<Answer, Over> {
        let shared = self.shared.clone();
        let answerer = &shared.answerer;
        Ok(match asked {
            Asked::Health { ready } => answerer.health(ready),
            Asked::Crash => answerer.crash(),
            Asked::Turn(query) => answerer.turn(&query),
            Asked::Content(content) => {
                answerer.switches.count_request();
                let latency = answerer.switches.latency();
                if !latency.is_zero() {
                    self.wait(Some(latency)).await?;
                }
                answerer.answer(content, received)
            }
        })
    }

    /// Waits so long, or for ever, but not for a client that is gone.
    async fn wait(&mut self, time: Option<Duration>) -> Result<(), Over> {
        let mut over = pin!(async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        });
        loop {
            // A client that sends that much ahead is not looked at any further.
            let is_full = self.buffer.len() > LONGEST_HEAD;
            tokio::select! {
                () = over.as_mut() => return Ok(()),
                more = self.more(), if !is_full => more?,
            }
        }
    }

    async fn write(
        &mut self,
        status: StatusCode,
        payload: &Payload,
        is_head: bool,
        keep: bool,
    ) -> Result<(), Over> {
        self.out.clear();
        self.shared.answerer.write_head(&mut self.out, status, payload.len(), keep);
        let length = if is_head || !may_have_body(status) { 0 } else { payload.len() };
        self.send(payload, length).await.map_err(|_| Over::Gone)
    }

    /// Promises the whole, sends the half, and closes.
    async fn cut(&mut self, payload: &Payload) -> Result<(), Over> {
        self.out.clear();
        self.shared.answerer.write_head(&mut self.out, StatusCode::OK, payload.len(), true);
        self.send(payload, payload.len() / 2).await.map_err(|_| Over::Gone)?;
        self.close().await
    }

    async fn refuse(&mut self) -> Result<(), Over> {
        self.write(StatusCode::BAD_REQUEST, &Payload::Dots(0), false, false).await?;
        self.close().await
    }

    /// Sends the head and the first `length` bytes of the body, in one write if that is possible.
    async fn send(&mut self, payload: &Payload, length: u64) -> io::Result<()> {
        let Self { stream, shared, out, .. } = self;
        let mut left = length;
        if left <= SMALL {
            out.extend_from_slice(payload.piece(0, left, &shared.dots));
            return stream.write_all(out).await;
        }
        let mut head = out.as_slice();
        while left > 0 {
            let piece = payload.piece(length - left, left, &shared.dots);
            let written = match head {
                [] => stream.write(piece).await?,
                head => stream.write_vectored(&[IoSlice::new(head), IoSlice::new(piece)]).await?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_head = written.min(head.len());
            head = &head[of_head..];
            left -= (written - of_head) as u64;
        }
        Ok(())
    }

    /// The end of the connection, after what was written.
    async fn close(&mut self) -> Result<(), Over> {
        self.stream.shutdown().await.map_err(|_| Over::Gone)
    }

    /// With no time to linger, closing sends a reset. If it cannot be set the close is a plain one.
    fn reset(&self) -> Result<(), Over> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).map_err(|_| Over::Gone)
    }
}

impl Payload {
    /// Bytes from `at` on, at most `left` of them.
    fn piece<'a>(&'a self, at: u64, left: u64, dots: &'a [u8]) -> &'a [u8] {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        match self {
            Self::Dots(_) => &dots[..left.min(dots.len())],
            Self::Text(text) => {
                let rest = &text.as_bytes()[usize::try_from(at).unwrap_or(usize::MAX).min(text.len())..];
                &rest[..left.min(rest.len())]
            }
        }
    }
}
