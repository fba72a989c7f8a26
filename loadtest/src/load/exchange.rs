//! One request and its answer, or what became of it.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::io;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connection::{Connection, Unanswered};
use super::pace::Ticket;
use super::record::{Outcome, Recorder};
use super::{Failure, FailureKind, Load, Report, Seen, UpstreamName};

/// The beginning of a body that is kept, for the reason or the name that stands in it.
const KEPT_OF_BODY: usize = 1024;

/// Everything that the tasks of one generator share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) load: Load,
    recorder: Recorder,
    random: RefCell<fastrand::Rng>,
    total_weight: f64,
}

/// What was drawn for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    pub(super) new_connection: bool,
    /// The place in the mix.
    pub(super) shot: usize,
}

/// How far a request has come, for the one that runs out of time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Connecting,
    Waiting,
    Reading,
}

/// What is known of an exchange while it runs.
#[derive(Debug)]
struct Progress {
    step: Cell<Step>,
    reused: Cell<bool>,
    local_port: Cell<Option<u16>>,
    retried: Cell<bool>,
    upstream: RefCell<Option<String>>,
    status: Cell<Option<u16>>,
}

struct Fault {
    kind: FailureKind,
    reason: String,
    /// See [`Failure::retriable`].
    retriable: bool,
}

impl Client {
    pub(super) fn new(load: Load, recorder: Recorder) -> Self {
        let total_weight = load.mix.iter().map(|shot| shot.weight).sum();
        let random = RefCell::new(fastrand::Rng::with_seed(load.seed));
        Self { load, recorder, random, total_weight }
    }

    /// What the next request is to be.
    pub(super) fn draw(&self) -> Draw {
        let mut random = self.random.borrow_mut();
        let new_connection = random.f64() < self.load.new_connections;
        let mut left = random.f64() * self.total_weight;
        let at = |shot: &super::Shot| {
            left -= shot.weight;
            left < 0.0
        };
        let shot = self.load.mix.iter().position(at).unwrap_or(self.load.mix.len() - 1);
        Draw { new_connection, shot }
    }

    /// The generator has come to a ticket: was it late itself?
    pub(super) fn note_handed_out(&self, due: Instant) {
        self.recorder.handed_out(due.elapsed(), self.load.late_after);
    }

    pub(super) fn report(&self) -> Report {
        self.recorder.report(&self.load)
    }

    /// Sends the request of one ticket on `connection`, opening or replacing it as needed, and records the outcome:
    /// true if it was answered as expected.
    pub(super) async fn one(&self, connection: &mut Option<Connection>, ticket: Ticket, draw: Draw) -> bool {
        let progress = Progress::default();
        let begun = Instant::now();
        let deadline = ticket.due + self.load.timeout;
        let queued = begun.saturating_duration_since(ticket.due) > self.load.late_after;
        let exchange = self.exchange(connection, draw.shot, &progress);
        let result = match tokio::time::timeout_at(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(progress.step.get().timed_out(queued)),
        };
        let ended = Instant::now();
        if result.as_ref().is_err_and(|fault| fault.kind != FailureKind::Status) {
            // Whatever state it is in, nothing more can be trusted on it.
            *connection = None;
        }
        self.record(ticket, draw, (begun, ended), queued, &progress, result)
    }

    fn record(
        &self,
        ticket: Ticket,
        draw: Draw,
        (begun, ended): (Instant, Instant),
        queued: bool,
        progress: &Progress,
        result: Result<(), Fault>,
    ) -> bool {
        let answered = result.is_ok();
        let upstream = progress.upstream.take();
        let method = &self.load.mix[draw.shot].method;
        let (new_connection, retried) = (!progress.reused.get(), progress.retried.get());
        if let Some(observer) = &self.load.observer {
            observer.see(&Seen {
                due: ticket.due,
                ended,
                answered,
                failure: result.as_ref().err().map(|fault| fault.kind),
                status: progress.status.get(),
                method,
                new_connection,
                upstream: upstream.as_deref(),
            });
        }
        let start = self.recorder.start();
        let failure = result.err().map(|fault| Failure {
            at: ended.saturating_duration_since(start),
            due: ticket.due.saturating_duration_since(start),
            kind: fault.kind,
            method: method.to_string(),
            reason: fault.reason,
            new_connection,
            local_port: progress.local_port.get(),
            retriable: fault.retriable,
            retried,
            upstream: upstream.clone(),
        });
        let latency = ended.saturating_duration_since(ticket.due);
        self.recorder.ended(&Outcome {
            method: method.clone(),
            keeps: !draw.new_connection,
            retried,
            latency,
            slow: latency > self.load.slow_after,
            service: ended.saturating_duration_since(begun),
            queued,
            status: progress.status.get(),
            upstream,
            failure,
            ended,
        });
        answered
    }

    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        shot: usize,
        progress: &Progress,
    ) -> Result<(), Fault> {
        let idempotent = self.load.mix[shot].method.is_idempotent();
        loop {
            let kept = connection.is_some();
            let open = self.usable(connection).await?;
            progress.reused.set(open.is_used());
            progress.local_port.set(open.local_port());
            progress.step.set(Step::Waiting);
            let unanswered = match open.send(self.request(shot)).await {
                Ok(response) => return self.read(response, progress).await,
                Err(unanswered) => unanswered,
            };
            let mut fault = Fault::from(&unanswered);
            fault.retriable = idempotent && progress.reused.get() && fault.kind == FailureKind::Reset;
            if kept && !unanswered.written {
                // Closed by the other side while it lay idle: nothing was asked on it, so nothing failed.
                self.recorder.replaced();
            } else if self.load.retry && fault.retriable && !progress.retried.replace(true) {
                // On a new connection: every kept one may have met the same end.
            } else {
                return Err(fault);
            }
            *connection = None;
            progress.step.set(Step::Connecting);
            progress.local_port.set(None);
        }
    }

    /// The connection, replaced if it was closed in the meantime, opened if there is none.
    async fn usable<'a>(&self, connection: &'a mut Option<Connection>) -> Result<&'a mut Connection, Fault> {
        if let Some(open) = connection
            && !open.is_usable().await
        {
            *connection = None;
            self.recorder.replaced();
        }
        match connection {
            Some(open) => Ok(open),
            empty @ None => {
                let opened = Connection::open(self.load.address)
                    .await
                    .map_err(|error| Fault::new(connect_kind(&error), io_reason(&error)))?;
                self.recorder.opened();
                Ok(empty.insert(opened))
            }
        }
    }

    fn request(&self, shot: usize) -> Request<Full<Bytes>> {
        let shot = &self.load.mix[shot];
        let mut request = Request::new(Full::new(shot.body.clone()));
        *request.method_mut() = shot.method.clone();
        *request.uri_mut() = self.load.target.clone();
        *request.headers_mut() = self.load.headers.clone();
        request.headers_mut().insert(header::HOST, self.load.host.clone());
        request
    }

    /// Reads the answer to its end and judges it.
    async fn read(&self, response: Response<Incoming>, progress: &Progress) -> Result<(), Fault> {
        let (head, mut body) = response.into_parts();
        progress.step.set(Step::Reading);
        progress.status.set(Some(head.status.as_u16()));
        if let UpstreamName::Header(name) = &self.load.upstream_name
            && let Some(value) = head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok())
        {
            progress.upstream.replace(Some(value.to_owned()));
        }
        let expected = self.load.expected.contains(&head.status.as_u16());
        let keep = !expected || self.load.upstream_name == UpstreamName::Body;
        let mut start = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Fault::new(FailureKind::MidBody, reason(&error)))?;
            if let (true, Some(data)) = (keep, frame.data_ref()) {
                let room = KEPT_OF_BODY - start.len();
                start.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        if !expected {
            let reason = format!("{} {}", head.status.as_u16(), reason_in(&start));
            return Err(Fault::new(FailureKind::Status, reason.trim_end().to_owned()));
        }
        if self.load.upstream_name == UpstreamName::Body {
            let name = String::from_utf8_lossy(&start[..start.len().min(128)]);
            progress.upstream.replace(Some(name.trim().to_owned()));
        }
        Ok(())
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            step: Cell::new(Step::Connecting),
            reused: Cell::new(false),
            local_port: Cell::new(None),
            retried: Cell::new(false),
            upstream: RefCell::new(None),
            status: Cell::new(None),
        }
    }
}

impl Step {
    /// `queued`: part of the time went by before there was a connection, which is not the other side's doing.
    fn timed_out(self, queued: bool) -> Fault {
        let (kind, reason) = match self {
            Self::Connecting => (FailureKind::ConnectTimeout, "no connection in time"),
            Self::Waiting => (FailureKind::Timeout, "no answer in time"),
            Self::Reading => (FailureKind::Stalled, "the answer did not end in time"),
        };
        let why = if queued { ": it waited for a free connection" } else { "" };
        Fault::new(kind, format!("{reason}{why}"))
    }
}

impl Fault {
    fn new(kind: FailureKind, reason: String) -> Self {
        Self { kind, reason, retriable: false }
    }
}

impl From<&Unanswered> for Fault {
    fn from(unanswered: &Unanswered) -> Self {
        let error = &unanswered.error;
        let reason =
            if unanswered.written { reason(error) } else { format!("before the request: {}", reason(error)) };
        let kind = match () {
            () if error.is_parse() => FailureKind::Protocol,
            () if unanswered.begun => FailureKind::MidBody,
            () => FailureKind::Reset,
        };
        Self::new(kind, reason)
    }
}

fn connect_kind(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureKind::ConnectRefused,
        io::ErrorKind::TimedOut => FailureKind::ConnectTimeout,
        _ => FailureKind::ConnectFailed,
    }
}

/// What a gateway says of its own failure: the word in the JSON body, else the beginning of the body.
fn reason_in(body: &[u8]) -> String {
    let word = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("reason").and_then(|reason| reason.as_str().map(str::to_owned)));
    word.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
    })
}

/// The innermost thing that went wrong, in few and always the same words.
fn reason(error: &hyper::Error) -> String {
    const CUT: &str = "closed before the answer was complete";
    if error.is_incomplete_message() {
        return CUT.to_owned();
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            let cut = error.kind() == io::ErrorKind::UnexpectedEof;
            return if cut { CUT.to_owned() } else { io_reason(error) };
        }
        cause = inner.source();
    }
    error.to_string()
}

fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}
