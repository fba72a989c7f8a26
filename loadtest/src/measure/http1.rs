//! One connection of HTTP/1.1.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::answer::{Answer, Answers};
use super::clock::Lane;
use super::draw::Draw;
use super::fault::{Fault, Step};
use super::request::Wired;
use super::wire::Wire;
use super::work::Work;
use crate::load::FailureKind;

/// What all connections of a thread read into, one after the other: it stays in the cache, and large answers need few
/// reads.
pub(super) type Scratch = Rc<RefCell<Vec<u8>>>;

/// How much is read at once.
pub(super) const SCRATCH: usize = 256 << 10;

struct Connection {
    wire: Wire,
    answers: Answers,
    used: bool,
}

/// How far a request has been written.
enum Sending {
    /// So many bytes.
    Writing(usize),
    Flushing,
    Done,
    Failed(io::Error),
}

/// Sends requests, one after the other, until no more are sent.
pub(super) async fn keep_sending(work: Rc<Work>, lane: Rc<Lane>, scratch: Scratch, mut kept: Option<Wire>) {
    let mut kept = kept.take().map(Connection::new);
    let mut now = Instant::now();
    while let Some(due) = work.pacer.next(now).await {
        let draw = work.draw();
        let mut own = None;
        let connection = if draw.new_connection { &mut own } else { &mut kept };
        let result = work.within(&lane, due, exchange(&work, &lane, &scratch, connection, draw)).await;
        if result.as_ref().is_err_and(|fault| fault.kind != FailureKind::Status) {
            // Whatever state it is in, nothing more can be trusted on it.
            *connection = None;
        }
        now = Instant::now();
        work.ended(due, now, &result).await;
        if let Some(own) = own {
            own.wait_for_close(&scratch).await;
        }
    }
}

async fn exchange(
    work: &Work,
    lane: &Lane,
    scratch: &Scratch,
    connection: &mut Option<Connection>,
    draw: Draw,
) -> Result<u16, Fault> {
    if connection.as_mut().is_some_and(|open| !open.is_usable(scratch)) {
        *connection = None;
        work.book.borrow_mut().replaced += 1;
    }
    let open = match &mut *connection {
        Some(open) => open,
        empty @ None => {
            let wire = Wire::open(&work.plan).await?;
            work.book.borrow_mut().opened += 1;
            empty.insert(Connection::new(wire))
        }
    };
    lane.step(Step::Waiting);
    open.used = true;
    let answer = open.exchange(lane, scratch, work.request(draw)).await?;
    if answer.close && !draw.new_connection {
        *connection = None;
    }
    work.judge(answer.status)
}

impl Connection {
    fn new(wire: Wire) -> Self {
        Self { wire, answers: Answers::default(), used: false }
    }

    /// Whether nothing came while nothing was asked: neither an end nor a word. The runtime knows without asking the
    /// kernel.
    fn is_usable(&mut self, scratch: &Scratch) -> bool {
        let mut scratch = scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        // No one is woken: the connection is looked at again before the next request.
        let mut cx = Context::from_waker(Waker::noop());
        !self.used || Pin::new(&mut self.wire).poll_read(&mut cx, &mut buffer).is_pending()
    }

    /// Writes the request and reads its answer, both as far as they go: what is answered before it was read to its end,
    /// as a body that is too large, must not wait for the rest to be taken.
    async fn exchange(&mut self, lane: &Lane, scratch: &Scratch, request: &Wired) -> Result<Answer, Fault> {
        let mut sending = Sending::Writing(0);
        poll_fn(|cx| {
            self.poll_send(cx, &request.bytes, &mut sending);
            let answered = ready!(self.poll_answer(cx, lane, scratch, request));
            Poll::Ready(match (answered, &sending) {
                // The rest of the request would be taken for the next one.
                (Ok(answer), Sending::Writing(_)) => Ok(Answer { close: true, ..answer }),
                (Ok(answer), _) => Ok(answer),
                (Err(fault), Sending::Failed(error)) if fault.kind == FailureKind::Reset => {
                    Err(Fault::broken(error, false))
                }
                (Err(fault), _) => Err(fault),
            })
        })
        .await
    }

    /// Writes what the connection takes now.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], sending: &mut Sending) {
        while let Sending::Writing(written) = sending {
            *sending = match Pin::new(&mut self.wire).poll_write(cx, &bytes[*written..]) {
                Poll::Pending => return,
                Poll::Ready(Ok(more)) if *written + more == bytes.len() => Sending::Flushing,
                Poll::Ready(Ok(0)) => Sending::Failed(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(more)) => Sending::Writing(*written + more),
                Poll::Ready(Err(error)) => Sending::Failed(error),
            };
        }
        if matches!(sending, Sending::Flushing)
            && let Poll::Ready(flushed) = Pin::new(&mut self.wire).poll_flush(cx)
        {
            *sending = flushed.map_or_else(Sending::Failed, |()| Sending::Done);
        }
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        lane: &Lane,
        scratch: &Scratch,
        request: &Wired,
    ) -> Poll<Result<Answer, Fault>> {
        let mut scratch = scratch.borrow_mut();
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let begun = !self.answers.is_fresh();
            if let Err(error) = ready!(Pin::new(&mut self.wire).poll_read(cx, &mut buffer)) {
                return Poll::Ready(Err(Fault::broken(&error, begun)));
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(self.answers.end().ok_or_else(|| Fault::closed(begun)));
            }
            let fed = self.answers.feed(buffer.filled(), request.is_head);
            match fed.map_err(|reason| Fault::new(FailureKind::Protocol, reason))? {
                Some(answer) => return Poll::Ready(Ok(answer)),
                None if !self.answers.is_fresh() => lane.step(Step::Reading),
                None => {}
            }
        }
    }

    /// Lets the other side close first, as it said it would: the port of whoever closes first is not free for a minute,
    /// and there are many more on that side.
    async fn wait_for_close(mut self, scratch: &Scratch) {
        let closed = poll_fn(|cx| {
            let mut scratch = scratch.borrow_mut();
            Pin::new(&mut self.wire).poll_read(cx, &mut ReadBuf::new(&mut scratch))
        });
        let _closed_or_slow =
            tokio::time::timeout(std::time::Duration::from_millis(100), closed).await.is_ok();
    }
}
