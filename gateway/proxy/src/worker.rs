//! One worker: a thread, its runtime, and everything that requests on it use without asking anybody else.
//!
//! Nothing here is shared with another worker but the immutable table, the endpoints' atomics, and this worker's shard
//! of the metrics, which others only read. So the state is behind `Rc`, `Cell` and `RefCell`; a borrow never lives over
//! an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use foldhash::fast::RandomState;
use portolan_model::{ClusterId, Listener, ListenerId};
use tokio::runtime::{Builder as RuntimeBuilder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::{Clock, Waking};
use crate::cluster::{Balancers, Cluster};
use crate::config::{LiveConfig, ProxyConfig};
use crate::drain::{Draining, WorkerReport};
use crate::flushes::Flushes;
use crate::http::exchange::Exchange;
use crate::http::headers::Signature;
use crate::http::spare_headers::SpareHeaders;
use crate::listener::{self, Client, Listening, accept};
use crate::progress::Progress;
use crate::table::{CompiledRule, Published, RoutingTable};
use crate::telemetry::{AccessLogger, Series, Shard};
use crate::tls;
use crate::upstream::{Buffers, Pool};

/// How often a worker looks for what has waited too long. Time-outs fire up to this much late.
const SWEEP: Duration = Duration::from_millis(250);
/// While draining, idle connections are looked at this often.
const DRAIN_SWEEP: Duration = Duration::from_millis(20);

/// Series of clusters that are gone are let go of at most this often: long enough for the last scrape to see them.
const PRUNE: Duration = Duration::from_secs(60);

/// What requests on one worker share.
pub(crate) struct Worker {
    config: Arc<ProxyConfig>,
    live: RefCell<Rc<LiveConfig>>,
    signature: Signature,
    table: RefCell<Held>,
    series: RefCell<HashMap<(u64, u64), Rc<Series>, RandomState>>,
    /// Whether series may be of clusters that are gone.
    series_outdated: Cell<bool>,
    series_pruned: Cell<Instant>,
    closing_since: Cell<Option<Instant>>,
    /// What requests and connections call the present; see there.
    pub(crate) clock: Clock,
    pub(crate) spare_headers: Rc<SpareHeaders>,
    pub(crate) builder: listener::Builder,
    /// Makes handshakes, if there is a certificate to show.
    pub(crate) acceptor: Option<tls::Acceptor>,
    pub(crate) balancers: RefCell<Balancers>,
    pub(crate) pool: Pool,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) flushes: Rc<Flushes>,
    pub(crate) metrics: Arc<Shard>,
    pub(crate) access_log: AccessLogger,
    pub(crate) clients: RefCell<Registry<Client>>,
    pub(crate) exchanges: RefCell<Registry<Exchange>>,
}

/// The table in use: a cache that looks at the shared pointer only, and a local count for those who hold the table.
struct Held {
    cache: Cache<Arc<ArcSwap<RoutingTable>>, Arc<RoutingTable>>,
    local: Rc<LocalTable>,
}

/// A worker's own count of who holds the table: the shared one is in a cache line that all workers would fight for.
pub(crate) struct LocalTable(Arc<RoutingTable>);

impl Deref for LocalTable {
    type Target = RoutingTable;

    fn deref(&self) -> &RoutingTable {
        &self.0
    }
}

/// Things that the sweep looks over, each found again by its place.
pub(crate) struct Registry<T> {
    places: Vec<Option<Rc<T>>>,
    free: Vec<usize>,
}

/// What a worker can be told.
pub(crate) enum Command {
    /// Accept connections from this socket.
    Listen {
        /// What the socket is for.
        listener: Arc<Listener>,
        /// This worker's own socket.
        socket: TcpListener,
    },
    /// Accept no more from this listener's socket, and say when it is closed.
    Close {
        /// Which.
        id: ListenerId,
        /// Told when the socket is closed.
        closed: oneshot::Sender<()>,
    },
    /// Finish: see [`crate::Proxy::drain`].
    Drain {
        /// When to give up on what is still in flight.
        deadline: watch::Receiver<Instant>,
        /// Told when all is done.
        done: oneshot::Sender<WorkerReport>,
    },
}

/// Everything that a worker is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) config: Arc<ProxyConfig>,
    pub(crate) live: watch::Receiver<Arc<LiveConfig>>,
    pub(crate) published: Published,
    pub(crate) progress: Arc<Progress>,
    pub(crate) metrics: Arc<Shard>,
    pub(crate) access_log: AccessLogger,
    pub(crate) signature: Signature,
    pub(crate) acceptor: Option<tls::Acceptor>,
    pub(crate) commands: mpsc::Receiver<Command>,
}

/// Starts a worker's thread. It ends when it has drained, or when nobody can tell it anything any more.
///
/// # Errors
/// If the thread or its runtime cannot be made.
pub(crate) fn spawn(parts: Parts) -> io::Result<std::thread::JoinHandle<()>> {
    let (made, made_seen) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{}", parts.index)).spawn(move || {
        let waking = Waking::default();
        let clock = Clock::new(waking.clone());
        let mut runtime = RuntimeBuilder::new_current_thread();
        runtime.enable_all().on_thread_unpark(move || waking.woke());
        match runtime.build_local(LocalOptions::default()) {
            Ok(runtime) => {
                // The one who starts it may have stopped waiting; then nobody needs to know.
                made.send(Ok(())).ok();
                runtime.block_on(run(parts, clock));
            }
            Err(error) => {
                made.send(Err(error)).ok();
            }
        }
    })?;
    made_seen.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// A worker's main loop; connections are tasks beside it.
async fn run(parts: Parts, clock: Clock) {
    let Parts { mut live, mut commands, mut published, progress, index, .. } = parts;
    let worker = Rc::new(Worker::new(
        parts.config,
        &live.borrow_and_update(),
        &published,
        index,
        parts.metrics,
        parts.access_log,
        parts.signature,
        parts.acceptor,
        clock,
    ));
    let flushes = Rc::clone(&worker.flushes);
    tokio::task::spawn_local(async move { flushes.run().await });
    let mut acceptors = Acceptors::default();
    let mut draining: Option<Draining> = None;
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tables_come, mut settings_come) = (true, true);
    progress.report(index, &worker.table());
    loop {
        tokio::select! {
            command = commands.recv(), if draining.is_none() => match command {
                None => return,
                Some(Command::Listen { listener, socket }) => acceptors.open(&worker, listener, socket),
                Some(Command::Close { id, closed }) => {
                    acceptors.close(&id).await;
                    // The one who asked may be gone.
                    closed.send(()).ok();
                }
                Some(Command::Drain { deadline, done }) => {
                    worker.closing_since.set(Some(Instant::now()));
                    draining = Some(Draining::begin(&worker, deadline, done));
                    acceptors.close_all().await;
                    sweep = interval(DRAIN_SWEEP);
                }
            },
            changed = published.generation.changed(), if tables_come => {
                tables_come = changed.is_ok();
                progress.report(index, &worker.table());
                worker.balancers.borrow_mut().sweep();
            }
            changed = published.retirements.changed(), if tables_come => {
                tables_come = changed.is_ok();
                worker.sweep_pool();
                worker.series_outdated.set(true);
            }
            changed = live.changed(), if settings_come => {
                settings_come = changed.is_ok();
                worker.live.replace(Rc::new(LiveConfig::clone(&live.borrow_and_update())));
            }
            _ = sweep.tick() => {
                worker.sweep();
                if draining.as_mut().is_some_and(|draining| draining.is_done(&worker)) {
                    break;
                }
            }
        }
    }
    if let Some(draining) = draining {
        draining.finish();
    }
}

// === impl Worker ===

impl Worker {
    #[expect(clippy::too_many_arguments, reason = "the parts of a worker, each of another type")]
    fn new(
        config: Arc<ProxyConfig>,
        live: &LiveConfig,
        published: &Published,
        index: usize,
        metrics: Arc<Shard>,
        access_log: AccessLogger,
        signature: Signature,
        acceptor: Option<tls::Acceptor>,
        clock: Clock,
    ) -> Self {
        let mut cache = Cache::new(Arc::clone(&published.table));
        let local = Rc::new(LocalTable(Arc::clone(cache.load())));
        let spare_headers = Rc::new(SpareHeaders::default());
        Self {
            live: RefCell::new(Rc::new(live.clone())),
            signature,
            table: RefCell::new(Held { cache, local }),
            series: RefCell::default(),
            series_outdated: Cell::new(false),
            series_pruned: Cell::new(clock.now()),
            clock,
            closing_since: Cell::new(None),
            builder: listener::builder(&config),
            acceptor,
            balancers: RefCell::new(Balancers::new(index, config.workers)),
            pool: Pool::default(),
            buffers: Rc::new(Buffers::new(Rc::clone(&spare_headers))),
            spare_headers,
            flushes: Rc::default(),
            metrics,
            access_log,
            clients: RefCell::default(),
            exchanges: RefCell::default(),
            config,
        }
    }

    /// What was fixed at the start.
    pub(crate) fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// What may change. Keep it for one request or one sweep.
    pub(crate) fn live(&self) -> Rc<LiveConfig> {
        Rc::clone(&self.live.borrow())
    }

    /// How this process signs in `Via`.
    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The newest table. Reads one shared pointer, and writes nothing that another worker reads.
    pub(crate) fn table(&self) -> Rc<LocalTable> {
        let mut held = self.table.borrow_mut();
        let Held { cache, local } = &mut *held;
        let newest = cache.load();
        if !Arc::ptr_eq(newest, &local.0) {
            *local = Rc::new(LocalTable(Arc::clone(newest)));
        }
        Rc::clone(local)
    }

    /// A random number, for weighted choices.
    #[expect(clippy::unused_self, reason = "randomness belongs to the worker's thread")]
    pub(crate) fn random(&self) -> u32 {
        fastrand::u32(..)
    }

    /// The series in which a request of this rule to this cluster is counted.
    pub(crate) fn series(&self, rule: &CompiledRule, cluster: &Cluster) -> Rc<Series> {
        let mut series = self.series.borrow_mut();
        let found = series
            .entry((rule.metrics, cluster.uid()))
            .or_insert_with(|| Rc::new(self.metrics.series(&rule.route, cluster.id())));
        Rc::clone(found)
    }

    /// Whether connections close with their next response.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing_since.get().is_some()
    }

    /// Since when they do.
    pub(crate) fn closing_since(&self) -> Option<Instant> {
        self.closing_since.get()
    }

    /// Whether this worker has its share of the connections that are allowed.
    pub(crate) fn is_full(&self) -> bool {
        let share = self.config.max_connections.div_ceil(self.config.workers.max(1));
        self.clients.borrow().len() >= share
    }

    fn sweep(&self) {
        // A worker that never sleeps has timers all the same.
        let now = self.clock.refresh();
        let live = self.live();
        for exchange in self.exchanges.borrow().iter() {
            exchange.check(now);
        }
        for client in self.clients.borrow().iter() {
            client.check(now, &live);
        }
        self.pool.sweep(now, live.upstream_idle_timeout);
        if self.series_outdated.get() && now - self.series_pruned.get() >= PRUNE {
            self.prune_series(now);
        }
    }

    /// Lets go of the series of clusters that are gone; without it, metrics would grow as long as Services come and go.
    fn prune_series(&self, now: Instant) {
        self.series_outdated.set(false);
        self.series_pruned.set(now);
        let table = self.table();
        let lives = |cluster: &ClusterId| table.clusters().find(cluster).is_some();
        self.series.borrow_mut().retain(|_, series| lives(&series.cluster));
        self.metrics.retain(lives);
    }

    fn sweep_pool(&self) {
        self.pool.sweep(Instant::now(), self.live().upstream_idle_timeout);
    }
}

// === impl Registry ===

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Registry<T> {
    /// Keeps a thing; gives its place.
    pub(crate) fn insert(&mut self, thing: Rc<T>) -> usize {
        if let Some(place) = self.free.pop() {
            self.places[place] = Some(thing);
            return place;
        }
        self.places.push(Some(thing));
        self.places.len() - 1
    }

    /// Lets go of the thing at a place.
    pub(crate) fn remove(&mut self, place: usize) {
        if self.places.get_mut(place).and_then(Option::take).is_some() {
            self.free.push(place);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<T>> {
        self.places.iter().flatten()
    }
}

// === impl Acceptors ===

/// The sockets that this worker accepts from.
#[derive(Default)]
struct Acceptors(HashMap<ListenerId, Acceptor, RandomState>);

struct Acceptor {
    listening: Rc<Listening>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Acceptors {
    fn open(&mut self, worker: &Rc<Worker>, listener: Arc<Listener>, socket: TcpListener) {
        let port = socket.local_addr().map_or(listener.bind.port(), |local| local.port());
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, listener = %listener.id, "a worker cannot use its socket");
                return;
            }
        };
        let series = worker.metrics.listener(&listener.id);
        let id = listener.id.clone();
        let listening = Rc::new(Listening { listener, port, series, closing: Cell::new(false) });
        let (stop, stopped) = watch::channel(false);
        let task = accept(Rc::clone(worker), Rc::clone(&listening), socket, stopped);
        let task = tokio::task::spawn_local(task);
        self.0.insert(id, Acceptor { listening, stop, task });
    }

    async fn close(&mut self, id: &ListenerId) {
        if let Some(acceptor) = self.0.remove(id) {
            acceptor.close().await;
        }
    }

    async fn close_all(&mut self) {
        let acceptors: Vec<_> = self.0.drain().map(|(_, acceptor)| acceptor).collect();
        for acceptor in acceptors {
            acceptor.close().await;
        }
    }
}

impl Acceptor {
    async fn close(self) {
        self.listening.closing.set(true);
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, listener = %self.listening.listener.id, "accepting ended badly");
        }
    }
}
