//! Counting while it runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use http::Method;
use tokio::time::Instant;

use super::Load;
use super::report::{Failure, Percentiles, Report, Span, Tally};

/// Failures that are kept whole; the counts go on beyond it.
const KEPT_FAILURES: usize = 10_000;
/// Failures, and slow requests, whose times are kept for the spans.
const KEPT_TIMES: usize = 1_000_000;
/// Names of upstreams that are counted apart.
const KEPT_NAMES: usize = 10_000;

/// What has been seen so far, of the whole run and of its last phase; shared by the generator's thread, which writes, and
/// those who look.
#[derive(Debug, Clone)]
pub(super) struct Recorder(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    whole: Book,
    phase: Book,
}

#[derive(Debug)]
struct Book {
    /// The zero of all times.
    start: Instant,
    began: SystemTime,
    /// When this book was opened.
    opened_at: Instant,
    last: Instant,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    send_delay: Histogram<u64>,
    late_sends: u64,
    queued: u64,
    opened: u64,
    replaced: u64,
    all: Tally,
    idempotent: Tally,
    not_idempotent: Tally,
    methods: BTreeMap<String, Tally>,
    kept_connections: Tally,
    new_connections: Tally,
    statuses: BTreeMap<u16, u64>,
    upstreams: BTreeMap<String, u64>,
    failures: Vec<Failure>,
    failure_times: Vec<(Duration, Duration)>,
    slow_times: Vec<(Duration, Duration)>,
}

/// How one request ended.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) method: Method,
    /// Whether its client keeps connections.
    pub(super) keeps: bool,
    /// Whether it was sent a second time.
    pub(super) retried: bool,
    /// From its due time.
    pub(super) latency: Duration,
    /// Whether that is over the bound.
    pub(super) slow: bool,
    /// From when a connection was free for it.
    pub(super) service: Duration,
    /// Whether it waited for a free connection.
    pub(super) queued: bool,
    pub(super) status: Option<u16>,
    pub(super) upstream: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) ended: Instant,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let (start, began) = (Instant::now(), SystemTime::now());
        let book = || Book::new(start, began, start);
        Self(Arc::new(Mutex::new(Books { whole: book(), phase: book() })))
    }

    /// The first request is due at `start`: everything begins anew.
    pub(super) fn begin(&self, start: Instant) {
        let began = SystemTime::now() + start.saturating_duration_since(Instant::now());
        let book = || Book::new(start, began, start);
        *self.books() = Books { whole: book(), phase: book() };
    }

    pub(super) fn start(&self) -> Instant {
        self.books().whole.start
    }

    /// A ticket reached the sender this long after it was due.
    pub(super) fn handed_out(&self, delay: Duration, late_after: Duration) {
        self.books().each(|book| book.handed_out(delay, late_after));
    }

    /// A connection was opened while requests ran.
    pub(super) fn opened(&self) {
        self.books().each(|book| book.opened += 1);
    }

    /// A connection that the other side had closed was given up.
    pub(super) fn replaced(&self) {
        self.books().each(|book| book.replaced += 1);
    }

    pub(super) fn ended(&self, outcome: &Outcome) {
        self.books().each(|book| book.ended(outcome));
    }

    /// What has been seen since the start.
    pub(super) fn report(&self, load: &Load) -> Report {
        self.books().whole.report(load)
    }

    /// What has been seen since the last call of this.
    pub(super) fn phase(&self, load: &Load) -> Report {
        let mut books = self.books();
        let new = Book::new(books.whole.start, books.whole.began, Instant::now());
        std::mem::replace(&mut books.phase, new).report(load)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Counts are sound whenever the lock is free, also after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn each(&mut self, mut write: impl FnMut(&mut Book)) {
        write(&mut self.whole);
        write(&mut self.phase);
    }
}

impl Book {
    fn new(start: Instant, began: SystemTime, opened_at: Instant) -> Self {
        Self {
            start,
            began,
            opened_at,
            last: opened_at,
            latency: histogram(),
            service: histogram(),
            send_delay: histogram(),
            late_sends: 0,
            queued: 0,
            opened: 0,
            replaced: 0,
            all: Tally::default(),
            idempotent: Tally::default(),
            not_idempotent: Tally::default(),
            methods: BTreeMap::new(),
            kept_connections: Tally::default(),
            new_connections: Tally::default(),
            statuses: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            failures: Vec::new(),
            failure_times: Vec::new(),
            slow_times: Vec::new(),
        }
    }

    fn handed_out(&mut self, delay: Duration, late_after: Duration) {
        self.late_sends += u64::from(delay > late_after);
        self.send_delay.saturating_record(micros(delay));
    }

    fn ended(&mut self, outcome: &Outcome) {
        self.last = self.last.max(outcome.ended);
        if let Some(status) = outcome.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        self.queued += u64::from(outcome.queued);
        self.tally(outcome);
        if outcome.slow && self.slow_times.len() < KEPT_TIMES {
            let over = outcome.ended.saturating_duration_since(self.start);
            self.slow_times.push((over.saturating_sub(outcome.latency), over));
        }
        match &outcome.failure {
            None => {
                self.latency.saturating_record(micros(outcome.latency));
                self.service.saturating_record(micros(outcome.service));
                self.count_upstream(outcome.upstream.as_deref());
            }
            Some(failure) => {
                if self.failures.len() < KEPT_FAILURES {
                    self.failures.push(failure.clone());
                }
                if self.failure_times.len() < KEPT_TIMES {
                    self.failure_times.push((failure.due, failure.at));
                }
            }
        }
    }

    fn tally(&mut self, outcome: &Outcome) {
        let of_class =
            if outcome.method.is_idempotent() { &mut self.idempotent } else { &mut self.not_idempotent };
        let of_connection =
            if outcome.keeps { &mut self.kept_connections } else { &mut self.new_connections };
        let of_method = match self.methods.get_mut(outcome.method.as_str()) {
            Some(tally) => tally,
            None => self.methods.entry(outcome.method.to_string()).or_default(),
        };
        for tally in [&mut self.all, of_class, of_connection, of_method] {
            tally.count(outcome.failure.as_ref(), outcome.slow, outcome.retried);
        }
    }

    fn count_upstream(&mut self, name: Option<&str>) {
        let Some(name) = name else { return };
        if let Some(count) = self.upstreams.get_mut(name) {
            *count += 1;
        } else {
            let name = if self.upstreams.len() < KEPT_NAMES { name } else { "(others)" };
            *self.upstreams.entry(name.to_owned()).or_default() += 1;
        }
    }

    fn report(&self, load: &Load) -> Report {
        Report {
            target: load.shown_target(),
            pace: load.pace,
            began: self.began,
            start: self.start,
            requests: self.all.requests,
            answered: self.all.answered,
            failed: self.all.failed,
            elapsed: self.last.saturating_duration_since(self.opened_at),
            latency: Percentiles::of(&self.latency),
            service: Percentiles::of(&self.service),
            send_delay: Percentiles::of(&self.send_delay),
            late_sends: self.late_sends,
            queued: self.queued,
            slow_after: load.slow_after,
            slow: self.all.slow,
            retriable: self.all.retriable,
            retried: self.all.retried,
            idempotent: self.idempotent.clone(),
            not_idempotent: self.not_idempotent.clone(),
            methods: self.methods.clone(),
            kept_connections: self.kept_connections.clone(),
            new_connections: self.new_connections.clone(),
            connections_opened: self.opened,
            connections_replaced: self.replaced,
            statuses: self.statuses.clone(),
            upstreams: self.upstreams.clone(),
            failed_by_kind: self.all.failed_by_kind.clone(),
            spans: Span::of(self.failure_times.clone()),
            slow_spans: Span::of(self.slow_times.clone()),
            failures: self.failures.clone(),
        }
    }
}

fn histogram() -> Histogram<u64> {
    // One microsecond to ten minutes, to three digits.
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
