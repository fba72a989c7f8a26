//! What the handler, the two bodies and the clock share of one request.
//!
//! Time-outs cost no timer for each request. An exchange notes when something last happened, and the worker's sweep
//! looks over all exchanges a few times a second; so a time-out fires up to one sweep late, never early. (A short
//! response time-out is kept exactly: `upstream::attempt`.)

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http_body::{Body as _, Frame};
use portolan_model::Timeouts;
use tokio::time::Instant;

use crate::error::Reason;
use crate::http::body::Download;
use crate::http::client_body::ClientBody;
use crate::http::headers::clean_trailers;
use crate::http::request_id::RequestId;
use crate::http::survey::Values;
use crate::http1::body::Piece;
use crate::listener::Client;
use crate::telemetry::{Record, Series};

/// One request and its response.
pub(crate) struct Exchange {
    pub(crate) client: Rc<Client>,
    record: RefCell<Option<Record>>,
    /// The request's body, as long as the request has not ended. It stays here and is not given away, so that a
    /// request of which no byte was written can be tried again with its body.
    upload: RefCell<Option<ClientBody>>,
    upload_state: Cell<Upload>,
    upload_waker: RefCell<Option<Waker>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    timeouts: Cell<Limits>,
    deadline: Cell<Option<Instant>>,
    /// The response's body, as long as it comes.
    pub(crate) download: RefCell<Option<Download>>,
    failed: Cell<Option<Reason>>,
    /// Whether it failed, and is kept by a client that takes nothing of its response.
    stuck: Cell<bool>,
    /// Of whoever waits for the endpoint: first the handler, then the response's body.
    waker: RefCell<Option<Waker>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    max_body_bytes: Option<u64>,
}

/// How far the request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It has not been read from. As long as that is so, the request can be sent again.
    Untouched,
    /// It flows.
    Flowing,
    /// All of it is through, or there was none.
    Done,
    /// The response is here and wants no more of it: it is read no further.
    Stopped,
    /// It must end with an error, so that the upstream connection is closed.
    Aborted,
}

/// What the exchange is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Ourselves, or a connection, which has a timer of its own.
    Busy,
    /// The rest of the request's body.
    Uploading,
    /// The head of the response.
    AwaitingHead,
    /// The rest of the response.
    Downloading,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    response_header: Duration,
    stream_idle: Duration,
}

/// Owns an exchange while it lasts: ends it, and tells its record, when dropped. It moves from the handler into the
/// body of the response. Dropping it half-way (the client went away) cancels everything that belongs to it.
pub(crate) struct InFlight {
    exchange: Rc<Exchange>,
    /// Where the worker's sweep finds the exchange.
    place: usize,
}

// === impl InFlight ===

impl InFlight {
    /// Begins with a request that has just come in.
    pub(crate) fn begin(client: Rc<Client>, parts: &Parts, values: &Values<'_>, body: ClientBody) -> Self {
        let worker = client.worker();
        let record = Record::open(Rc::clone(worker), parts, values, client.peer.address);
        let empty = body.is_end_stream();
        let exchange = Rc::new(Exchange {
            since: Cell::new(record.started),
            record: RefCell::new(Some(record)),
            upload: RefCell::new((!empty).then_some(body)),
            upload_state: Cell::new(if empty { Upload::Done } else { Upload::Untouched }),
            upload_waker: RefCell::new(None),
            phase: Cell::new(Phase::Busy),
            timeouts: Cell::new(Limits { response_header: Duration::MAX, stream_idle: Duration::MAX }),
            deadline: Cell::new(None),
            download: RefCell::new(None),
            failed: Cell::new(None),
            stuck: Cell::new(false),
            waker: RefCell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            max_body_bytes: worker.live().max_body_bytes,
            client,
        });
        exchange.client.request_began();
        let place = exchange.client.worker().exchanges.borrow_mut().insert(Rc::clone(&exchange));
        Self { exchange, place }
    }

    /// The exchange.
    pub(crate) fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// The last byte of the response has been handed over: this is no broken exchange.
    pub(crate) fn complete(self) {
        self.exchange.phase.set(Phase::Busy);
        if let Some(record) = self.exchange.record.borrow_mut().take() {
            self.exchange.tell(record);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let exchange = &self.exchange;
        exchange.client.worker().exchanges.borrow_mut().remove(self.place);
        exchange.client.request_ended(exchange.upload_state.get() == Upload::Done, exchange.stuck.get());
        drop(exchange.download.take());
        exchange.abort_upload();
        drop(exchange.upload.borrow_mut().take());
        if let Some(mut record) = exchange.record.borrow_mut().take() {
            // Nobody said that it was complete, so it broke off.
            record.reason = record.reason.or(exchange.failed.get()).or(Some(Reason::ClientClosed));
            exchange.tell(record);
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// Whether the request has a body.
    pub(crate) fn has_upload(&self) -> bool {
        self.upload_state.get() != Upload::Done
    }

    /// Whether some of the request's body was read, be it all of it, or it broke off. It is not kept, so the request cannot
    /// be sent again.
    pub(crate) fn upload_was_touched(&self) -> bool {
        match self.upload_state.get() {
            Upload::Untouched => false,
            // The body stays here to the end of the request, though nothing is left in it.
            Upload::Done => self.upload.borrow().is_some(),
            Upload::Flowing | Upload::Stopped | Upload::Aborted => true,
        }
    }

    /// Whether the endpoint answered with a refusal before the request was whole.
    pub(crate) fn upload_is_refused(&self) -> bool {
        matches!(self.upload_state.get(), Upload::Stopped | Upload::Aborted)
    }

    /// The request's id: the one that its head was given, or, if it failed before, one made now and told in its record.
    pub(crate) fn request_id(&self) -> RequestId {
        match self.record.borrow_mut().as_mut() {
            Some(record) => record.request_id.get_or_insert_with(RequestId::new).clone(),
            None => RequestId::new(),
        }
    }

    /// Notes something in the record, which exists until the exchange has ended.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Record)) {
        if let Some(record) = self.record.borrow_mut().as_mut() {
            note(record);
        }
    }

    fn tell(&self, mut record: Record) {
        record.bytes_in = self.bytes_in.get();
        record.bytes_out = self.bytes_out.get();
        drop(record);
    }

    /// The request found its route and cluster.
    pub(crate) fn routed(&self, series: Rc<Series>) {
        self.note(|record| record.series = Some(series));
    }

    /// What the cluster's policy says of time; the clock of the whole request has run since its head was in.
    pub(crate) fn limit(&self, timeouts: &Timeouts) {
        self.timeouts
            .set(Limits { response_header: timeouts.response_header, stream_idle: timeouts.stream_idle });
        if let (Some(limit), None) = (timeouts.request, self.deadline.get()) {
            let started = self.record.borrow().as_ref().map_or_else(|| self.now(), |record| record.started);
            self.deadline.set(started.checked_add(limit));
        }
    }

    /// The request goes out on a connection now.
    pub(crate) fn sending(&self) {
        self.enter(if self.upload_state.get() == Upload::Done {
            Phase::AwaitingHead
        } else {
            Phase::Uploading
        });
    }

    /// Nothing is waited for.
    pub(crate) fn busy(&self) {
        self.phase.set(Phase::Busy);
    }

    /// The head of the response is here. If it is a refusal and the request's body is still coming, that is read no
    /// further: the endpoint does not want it.
    pub(crate) fn answered(&self, refusal: bool) {
        self.enter(Phase::Downloading);
        if refusal {
            self.refuse_upload();
        }
    }

    /// The endpoint takes no more of the request: what is left of its body is not read.
    pub(crate) fn refuse_upload(&self) {
        if self.upload_state.get() != Upload::Done {
            self.upload_state.set(Upload::Stopped);
        }
    }

    /// As exact as time-outs need it: see [`crate::clock`].
    fn now(&self) -> Instant {
        self.client.worker().clock.now()
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.now());
    }

    /// Why the exchange failed, if it did so from outside of the handler.
    pub(crate) fn failed(&self) -> Option<Reason> {
        self.failed.get()
    }

    /// Bytes of the response went to the client's connection.
    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
        self.since.set(self.now());
    }

    /// Runs `step` until it is done or the exchange fails from outside (a time-out, a body that is too large).
    pub(crate) async fn unless_failed<F: Future>(&self, step: F) -> Result<F::Output, Reason> {
        let mut step = pin!(step);
        poll_fn(|cx| {
            if let Poll::Ready(output) = step.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_failed(cx).map(Err)
        })
        .await
    }

    /// Ready when the exchange has failed from outside; wakes the caller when it does.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.failed.get() {
            return Poll::Ready(reason);
        }
        keep_waker(&self.waker, cx);
        Poll::Pending
    }

    /// The next piece of the request's body.
    pub(crate) fn poll_upload(&self, cx: &mut Context<'_>) -> Poll<Result<Piece, UploadBroken>> {
        match self.upload_state.get() {
            Upload::Done => return Poll::Ready(Ok(Piece::End(None))),
            Upload::Aborted => return Poll::Ready(Err(UploadBroken)),
            Upload::Stopped => {
                keep_waker(&self.upload_waker, cx);
                return Poll::Pending;
            }
            Upload::Untouched | Upload::Flowing => {}
        }
        let mut upload = self.upload.borrow_mut();
        let Some(body) = upload.as_mut() else { return Poll::Ready(Err(UploadBroken)) };
        let polled = std::pin::Pin::new(&mut *body).poll_frame(cx);
        self.upload_state.set(Upload::Flowing);
        match polled {
            Poll::Pending => {
                keep_waker(&self.upload_waker, cx);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                let last = frame.is_trailers() || body.is_end_stream();
                Poll::Ready(self.take_in(frame, last))
            }
            Poll::Ready(Some(Err(_))) => {
                self.fail(Reason::ClientReset);
                Poll::Ready(Err(UploadBroken))
            }
            Poll::Ready(None) => {
                self.uploaded();
                Poll::Ready(Ok(Piece::End(None)))
            }
        }
    }

    fn take_in(&self, frame: Frame<Bytes>, last: bool) -> Result<Piece, UploadBroken> {
        let taken = self.bytes_in.get() + frame.data_ref().map_or(0, |data| data.len() as u64);
        self.bytes_in.set(taken);
        if self.max_body_bytes.is_some_and(|limit| taken > limit) {
            self.fail(Reason::BodyTooLarge);
            return Err(UploadBroken);
        }
        if last {
            self.uploaded();
        } else {
            self.since.set(self.now());
        }
        match frame.into_data() {
            Ok(data) => Ok(Piece::Data(data)),
            Err(frame) => {
                let mut trailers = Box::new(frame.into_trailers().unwrap_or_default());
                clean_trailers(&mut trailers);
                Ok(Piece::End(Some(trailers)))
            }
        }
    }

    fn uploaded(&self) {
        self.upload_state.set(Upload::Done);
        if self.phase.get() == Phase::Uploading {
            self.enter(Phase::AwaitingHead);
        }
    }

    /// Carries the rest of the request's body to an endpoint that has answered already; ready when there is no more to
    /// do. The exchange's end wakes the caller.
    pub(crate) fn poll_rest_of_upload(&self, cx: &mut Context<'_>) -> Poll<()> {
        keep_waker(&self.upload_waker, cx);
        // Taken out, because the exchange lets go of it if the body breaks off.
        let Some(mut download) = self.download.take() else { return Poll::Ready(()) };
        let sent = download.poll_send(cx, self);
        if self.failed.get().is_none() {
            self.download.replace(Some(download));
        }
        sent
    }

    /// If the request's body is not through, makes it end with an error where it is read. Wakes who carries the rest of
    /// it: there is nothing more to do.
    fn abort_upload(&self) {
        if self.upload_state.get() != Upload::Done {
            self.upload_state.set(Upload::Aborted);
        }
        wake(&self.upload_waker);
    }

    /// Ends the exchange from outside; the first reason stays. The endpoint is let go of at once, however long the
    /// client's connection keeps what is left of the exchange.
    pub(crate) fn fail(&self, reason: Reason) {
        if self.failed.get().is_none() {
            self.failed.set(Some(reason));
            self.since.set(self.now());
            drop(self.download.take());
            self.abort_upload();
            wake(&self.waker);
        }
    }

    /// Whether something has been waited for too long; the sweep calls this.
    pub(crate) fn check(&self, now: Instant) {
        let waited = now.saturating_duration_since(self.since.get());
        let limits = self.timeouts.get();
        if self.failed.get().is_some() && self.phase.get() == Phase::Downloading {
            // It failed at an earlier sweep and is still here, so nobody asked for more of the response: what is to go out
            // is full, because the client does not take it.
            let first = !self.stuck.replace(true);
            self.client.stuck(first, waited >= limits.stream_idle);
            return;
        }
        let expired = match self.phase.get() {
            Phase::Busy => None,
            Phase::AwaitingHead => (waited >= limits.response_header).then_some(Reason::ResponseTimeout),
            Phase::Uploading | Phase::Downloading => {
                (waited >= limits.stream_idle).then_some(Reason::StreamIdleTimeout)
            }
        };
        let late = self.deadline.get().is_some_and(|deadline| now >= deadline);
        if let Some(reason) = late.then_some(Reason::DeadlineExceeded).or(expired) {
            self.fail(reason);
        }
    }
}

/// The request's body did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("the request body broke off")]
pub(crate) struct UploadBroken;

fn keep_waker(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match slot.as_mut() {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    let waker = slot.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}
