//! One thread of the generator.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::LocalOptions;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::book::{Book, Window};
use super::clock::{self, Lane};
use super::pace::Pacer;
use super::wire::Wire;
use super::work::Work;
use super::{Plan, Protocol, http1, http2};

/// How long requests under way may take when the run is stopped.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long one connection may take before the start.
const OPENING: Duration = Duration::from_secs(1);

/// What a thread is told.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: usize,
    /// When the first request is due, that of the warm-up if there is one.
    pub(super) start: Instant,
    pub(super) window: Window,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) progress: Arc<Progress>,
}

/// The counts of one thread, for those who look on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    pub(super) fn read(&self) -> (u64, u64) {
        (self.answered.load(Relaxed), self.failed.load(Relaxed))
    }

    fn write(&self, (answered, failed): (u64, u64)) {
        self.answered.store(answered, Relaxed);
        self.failed.store(failed, Relaxed);
    }
}

/// Does its part of the plan. Blocks the thread.
pub(super) fn run(plan: Arc<Plan>, part: &Part) -> anyhow::Result<Book> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(send(plan, part))
}

async fn send(plan: Arc<Plan>, part: &Part) -> anyhow::Result<Book> {
    let work = Work::new(plan.clone(), part.pacer(&plan), Book::new(part.window), part.number as u64 + 1);
    let mut sending = JoinSet::new();
    let lanes = match plan.protocol {
        Protocol::Http1 => http1_lanes(&work, part, &mut sending).await,
        Protocol::Http2 { streams } => http2_lanes(&work, part, streams, &mut sending).await,
    };
    let pacer = work.pacer.clone();
    let ticking =
        async { if pacer.is_open() { pacer.tick().await.context("waiting for due times") } else { Ok(()) } };
    let ended = async {
        let all = async {
            while let Some(ended) = sending.join_next().await {
                ended.context("a task of the generator ended badly, and its request is in no count")?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(all, ticking)
    };
    tokio::select! {
        ended = ended => { ended?; }
        () = stopped(&part.stop) => {}
        () = look_on(&work, &part.progress) => {}
        () = clock::keep_time(lanes, plan.timeout) => {}
    }
    drop(sending);
    let mut book = work.book.replace(Book::new(part.window));
    book.close();
    part.progress.write(book.totals());
    Ok(book)
}

async fn http1_lanes(work: &Rc<Work>, part: &Part, sending: &mut JoinSet<()>) -> Vec<Rc<Lane>> {
    let scratch = Rc::new(RefCell::new(vec![0; http1::SCRATCH]));
    let kept = work.plan.new_connections < 1.0;
    let connections = part.share(work.plan.connections, work.plan.threads);
    let wires = if kept { opened(&work.plan, connections).await } else { none(connections) };
    tokio::time::sleep_until(part.start).await;
    let mut lanes = Vec::new();
    for wire in wires {
        let lane = Lane::new();
        lanes.push(lane.clone());
        sending.spawn_local(http1::keep_sending(work.clone(), lane, scratch.clone(), wire));
    }
    lanes
}

async fn http2_lanes(
    work: &Rc<Work>,
    part: &Part,
    streams: usize,
    sending: &mut JoinSet<()>,
) -> Vec<Rc<Lane>> {
    let mut connections = Vec::new();
    for wire in opened(&work.plan, part.share(work.plan.connections, work.plan.threads)).await {
        connections.push(http2::Connection::new(wire).await);
    }
    tokio::time::sleep_until(part.start).await;
    let mut lanes = Vec::new();
    for connection in connections {
        for _ in 0..streams {
            let lane = Lane::new();
            lanes.push(lane.clone());
            sending.spawn_local(http2::keep_sending(work.clone(), lane, connection.clone()));
        }
    }
    lanes
}

/// So many connections before the start. Once one cannot be opened the others are left to their first requests, which say
/// why: trying each of them in vain would take longer than the run.
async fn opened(plan: &Plan, connections: usize) -> Vec<Option<Wire>> {
    let mut wires = none(connections);
    for wire in &mut wires {
        match tokio::time::timeout(plan.timeout.min(OPENING), Wire::open(plan)).await {
            Ok(Ok(open)) => *wire = Some(open),
            _ => break,
        }
    }
    wires
}

fn none(connections: usize) -> Vec<Option<Wire>> {
    (0..connections).map(|_| None).collect()
}

/// Returns when the run was stopped and those under way have had their time.
async fn stopped(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(PATIENCE).await;
}

async fn look_on(work: &Work, progress: &Progress) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        progress.write(work.book.borrow().totals());
    }
}

impl Part {
    /// This thread's part of so many.
    fn share(&self, all: usize, threads: usize) -> usize {
        all / threads + usize::from(self.number < all % threads)
    }

    fn pacer(&self, plan: &Plan) -> Rc<Pacer> {
        let threads = plan.threads as f64;
        // The threads take turns: together they send evenly.
        let phase =
            plan.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.number as f64 / rate));
        let count = plan.count.map(|count| {
            count / plan.threads as u64 + u64::from((self.number as u64) < count % plan.threads as u64)
        });
        let rate = plan.rate.map(|rate| rate / threads);
        Pacer::new(self.start + phase, self.window.end, rate, count, self.stop.clone())
    }
}
