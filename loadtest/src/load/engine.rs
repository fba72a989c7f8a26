//! Tickets in, requests out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::connection::Connection;
use super::exchange::{Client, Draw};
use super::pace::{self, Limits, Ticket};
use super::record::Recorder;
use super::{Load, Pace, Report};

/// Requests on new connections under way at once; more wait, and count their latency.
const MOST_NEW_AT_ONCE: usize = 4096;

/// A request that ended with a task is in no count: the others must not be believed either.
const LOST: &str = "a task of the generator ended badly, and its request is in no count";

/// Runs the whole load on this thread.
pub(super) fn run(load: Load, recorder: Recorder, stop: Arc<AtomicBool>) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let limits = Limits { duration: load.duration, count: load.count, stop };
    LocalSet::new().block_on(&runtime, async move {
        let connections = open_all(&load).await;
        // A moment, so that the pacing thread is there before the first request is due.
        let start = Instant::now() + Duration::from_millis(5);
        recorder.begin(start);
        let client = Rc::new(Client::new(load, recorder));
        match client.load.pace {
            Pace::Open { rate } => open_loop(&client, connections, start, rate, limits).await?,
            Pace::Closed => closed_loop(&client, connections, start, limits).await?,
        }
        Ok(client.report())
    })
}

/// The kept connections. One that cannot be opened now is tried again when a request needs it, and fails that request.
async fn open_all(load: &Load) -> Vec<Option<Connection>> {
    let mut connections = Vec::with_capacity(load.connections);
    let deadline = Instant::now() + load.timeout;
    for _ in 0..load.connections {
        let opened = tokio::time::timeout_at(deadline, Connection::open(load.address)).await;
        connections.push(opened.ok().and_then(Result::ok));
    }
    connections
}

// === the open loop ===

async fn open_loop(
    client: &Rc<Client>,
    connections: Vec<Option<Connection>>,
    start: Instant,
    rate: f64,
    limits: Limits,
) -> anyhow::Result<()> {
    let (sender, mut tickets) = mpsc::channel(65_536);
    let pacer = std::thread::Builder::new()
        .name("load-pace".to_owned())
        .spawn(move || pace::hand_out(start, rate, &limits, &sender))
        .context("starting the pacing thread")?;

    let hall = Rc::new(Hall::default());
    let mut tasks = JoinSet::new();
    let slots = connections.len();
    for connection in connections {
        tasks.spawn_local(keep_sending(client.clone(), hall.clone(), connection));
    }
    let newcomers = Arc::new(Semaphore::new(MOST_NEW_AT_ONCE));
    while let Some(ticket) = tickets.recv().await {
        client.note_handed_out(ticket.due);
        let draw = client.draw();
        if draw.new_connection {
            let (client, newcomers) = (client.clone(), newcomers.clone());
            tasks.spawn_local(async move {
                let _permit = newcomers.acquire().await.expect("the semaphore is never closed");
                client.one(&mut None, ticket, draw).await;
            });
        } else {
            hall.enter(Some((ticket, draw)));
        }
        // The ended tasks are taken out as they end, so that the set does not grow with the run.
        while let Some(ended) = tasks.try_join_next() {
            ended.context(LOST)?;
        }
    }
    for _ in 0..slots {
        hall.enter(None);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context(LOST)?;
    }
    pacer.join().map_err(|_| anyhow::anyhow!("the pacing thread panicked"))
}

/// One kept connection: takes tickets until it is sent home.
async fn keep_sending(client: Rc<Client>, hall: Rc<Hall>, mut connection: Option<Connection>) {
    while let Some((ticket, draw)) = hall.next().await {
        client.one(&mut connection, ticket, draw).await;
    }
}

/// Where tickets wait for a kept connection, and kept connections for a ticket. Connections are served in turn, so all
/// of them stay in use.
#[derive(Debug)]
struct Hall {
    waiting: RefCell<VecDeque<Option<(Ticket, Draw)>>>,
    count: Semaphore,
}

impl Default for Hall {
    fn default() -> Self {
        Self { waiting: RefCell::default(), count: Semaphore::new(0) }
    }
}

impl Hall {
    /// A ticket, or nothing to send one connection home.
    fn enter(&self, ticket: Option<(Ticket, Draw)>) {
        self.waiting.borrow_mut().push_back(ticket);
        self.count.add_permits(1);
    }

    async fn next(&self) -> Option<(Ticket, Draw)> {
        self.count.acquire().await.expect("the semaphore is never closed").forget();
        self.waiting.borrow_mut().pop_front().expect("there is one entry for each permit")
    }
}

// === the closed loop ===

async fn closed_loop(
    client: &Rc<Client>,
    connections: Vec<Option<Connection>>,
    start: Instant,
    limits: Limits,
) -> anyhow::Result<()> {
    tokio::time::sleep_until(start).await;
    let sent = Rc::new(Cell::new(0u64));
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (client, limits, sent) = (client.clone(), limits.clone(), sent.clone());
        tasks.spawn_local(async move {
            while limits.allow(sent.get(), start.elapsed()) {
                sent.set(sent.get() + 1);
                let ticket = Ticket { due: Instant::now() };
                let draw = client.draw();
                let mut own = None;
                let on = if draw.new_connection { &mut own } else { &mut connection };
                if !client.one(on, ticket, draw).await {
                    // A refused connection fails at once: without a pause the loop would only measure itself.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context(LOST)?;
    }
    Ok(())
}
