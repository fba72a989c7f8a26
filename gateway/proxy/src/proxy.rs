//! The proxy as a whole: what is started, what can be asked of it, and how it ends.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use portolan_model::{Finding, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{LiveConfig, ProxyConfig};
use crate::drain::{DrainReport, HURRY, WorkerReport};
use crate::health::Prober;
use crate::http::headers::Signature;
use crate::listener::{ListenerStatus, Reconciler};
use crate::progress::Progress;
use crate::table::{Explanation, Published, Publisher, Question, RoutingTable};
use crate::telemetry::{AccessLogger, Metrics, Shard, TableMetrics};
use crate::tls::Acceptors;
use crate::worker::{self, Command};

/// Commands that may wait for a worker; it takes them at once unless it is closing a socket.
const COMMANDS: usize = 16;

/// A running proxy. Dropped, it ends at once; [`Proxy::drain`] ends it well.
pub struct Proxy {
    view: ProxyView,
    workers: Vec<mpsc::Sender<Command>>,
    threads: Vec<thread::JoinHandle<()>>,
    /// Ends when the workers have ended and everything is written.
    log_writer: thread::JoinHandle<()>,
    /// The publisher and the prober, which go on until the end.
    tasks: JoinSet<()>,
    /// Ends first, so that no socket is opened any more.
    reconciler: JoinSet<()>,
}

/// What can be seen of a proxy. Clones look at the same one.
#[derive(Debug, Clone)]
pub struct ProxyView {
    published: Published,
    findings: watch::Receiver<Arc<Vec<Finding>>>,
    listeners: watch::Receiver<Arc<Vec<ListenerStatus>>>,
    publishing: watch::Receiver<u64>,
}

impl std::ops::Deref for Proxy {
    type Target = ProxyView;

    fn deref(&self) -> &ProxyView {
        &self.view
    }
}

impl ProxyView {
    /// What could not be honoured in the snapshot: by the table, and by the listeners.
    pub fn findings(&self) -> watch::Receiver<Arc<Vec<Finding>>> {
        self.findings.clone()
    }

    /// How each listener of the snapshot stands. Empty until the first snapshot that has some has been tried.
    pub fn listeners(&self) -> watch::Receiver<Arc<Vec<ListenerStatus>>> {
        self.listeners.clone()
    }

    /// The table in use.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.published.table.load_full()
    }

    /// What would become of a request.
    pub fn explain(&self, question: &Question) -> Explanation {
        self.table().explain(question, Instant::now())
    }

    /// The newest generation of the table that every worker can use.
    pub fn publishing(&self) -> watch::Receiver<u64> {
        self.publishing.clone()
    }
}

impl Proxy {
    /// Starts the workers, and on the calling (control) runtime the publisher, the prober and what opens and closes
    /// sockets. Listeners are part of the snapshots: [`ProxyView::listeners`] tells what became of them.
    ///
    /// # Errors
    /// If threads or runtimes cannot be made, the pseudonym is not a token, or a metric is registered already.
    pub fn start(
        config: ProxyConfig,
        live: watch::Receiver<Arc<LiveConfig>>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        registry: &prometheus::Registry,
    ) -> io::Result<Self> {
        let mut config = config;
        config.workers = config.workers.max(1);
        let output = std::mem::replace(&mut config.access_log, crate::AccessLogOutput::Stdout);
        let (access_log, log_writer) = AccessLogger::start(output, config.access_log_backlog)?;
        let shards: Vec<_> = (0..config.workers).map(|_| Arc::new(Shard::default())).collect();
        let table_metrics = TableMetrics::register(registry).map_err(io::Error::other)?;
        let (publisher, published) = Publisher::new(table_metrics.observer());
        let metrics = Metrics::new(shards.clone(), access_log.dropped(), Arc::clone(&published.table));
        let metrics = metrics.map_err(io::Error::other)?;
        registry.register(Box::new(metrics)).map_err(io::Error::other)?;

        let (publishing, publishing_seen) = watch::channel(0);
        let progress = Arc::new(Progress::new(config.workers, publishing, table_metrics.convergence()));
        let acceptors =
            config.certificate.clone().map(Acceptors::new).transpose().map_err(io::Error::other)?;
        let config = Arc::new(config);
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for (index, metrics) in shards.into_iter().enumerate() {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let acceptor =
                acceptors.as_ref().map(Acceptors::acceptor).transpose().map_err(io::Error::other)?;
            threads.push(worker::spawn(worker::Parts {
                index,
                config: Arc::clone(&config),
                live: live.clone(),
                published: published.clone(),
                progress: Arc::clone(&progress),
                metrics,
                access_log: access_log.clone(),
                signature: Signature::new(&config.pseudonym).map_err(io::Error::other)?,
                acceptor,
                commands,
            })?);
            workers.push(sender);
        }

        let (statuses, listeners) = watch::channel(Arc::default());
        let (listener_findings, listener_findings_seen) = watch::channel(Arc::default());
        let reconcile =
            Reconciler::new(published.clone(), workers.clone(), &config, statuses, listener_findings);
        let mut reconciler = JoinSet::new();
        reconciler.spawn(reconcile.run());
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher.run(snapshots));
        tasks.spawn(Prober::new(published.clone()).run());
        let (all_findings, findings) = watch::channel(Arc::default());
        tasks.spawn(join_findings(published.findings.clone(), listener_findings_seen, all_findings));
        let view = ProxyView { published, findings, listeners, publishing: publishing_seen };
        Ok(Self { view, workers, threads, log_writer, tasks, reconciler })
    }

    /// What can be seen of it, for the admin pages; it may outlive the proxy.
    pub fn view(&self) -> ProxyView {
        self.view.clone()
    }

    /// Ends the proxy and loses no request, where that is possible:
    ///
    /// 1. For `delay`, everything goes on: balancers in front need that long to learn that this one is going.
    /// 2. The queues of the listening sockets are emptied and the sockets closed. From now on each HTTP/1.1 response
    ///    asks its client to close, and HTTP/2 clients get GOAWAY.
    /// 3. A connection that had a request in the last 5 s gets until its next one, but at most 5 s; one that has been
    ///    idle for longer is closed as soon as the worker has nothing in flight.
    /// 4. What is in flight has `timeout` to finish; then it is cut off.
    ///
    /// When `hurry` completes, at any time, what is left of this takes a second at most.
    pub async fn drain(
        self,
        delay: Duration,
        timeout: Duration,
        hurry: impl Future<Output = ()>,
    ) -> DrainReport {
        let Self { workers, threads, log_writer, mut tasks, mut reconciler, .. } = self;
        let began = Instant::now();
        let mut hurry = pin!(hurry);
        let mut hurried = false;
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = &mut hurry => hurried = true,
        }
        reconciler.shutdown().await;
        let left = if hurried { HURRY.min(timeout) } else { timeout };
        let (deadline, deadline_seen) = watch::channel(Instant::now() + left);
        let mut reports = pin!(finish(&workers, &deadline_seen));
        let sum = loop {
            tokio::select! {
                sum = &mut reports => break sum,
                () = &mut hurry, if !hurried => {
                    hurried = true;
                    deadline.send_modify(|deadline| *deadline = (*deadline).min(Instant::now() + HURRY));
                }
            }
        };
        tasks.shutdown().await;
        join(threads).await;
        flushed(&log_writer).await;
        DrainReport {
            connections: sum.connections,
            in_flight: sum.in_flight,
            aborted: sum.aborted,
            took: began.elapsed(),
        }
    }
}

/// Tells every worker to finish; waits for all of them.
async fn finish(workers: &[mpsc::Sender<Command>], deadline: &watch::Receiver<Instant>) -> WorkerReport {
    let mut waiting = Vec::new();
    for worker in workers {
        let (done, report) = oneshot::channel();
        if worker.send(Command::Drain { deadline: deadline.clone(), done }).await.is_ok() {
            waiting.push(report);
        }
    }
    let mut sum = WorkerReport::default();
    for report in waiting {
        if let Ok(report) = report.await {
            sum.connections += report.connections;
            sum.in_flight += report.in_flight;
            sum.aborted += report.aborted;
        }
    }
    sum
}

/// Waits until the threads have ended, which they do right after their report.
async fn join(threads: Vec<thread::JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    });
    if let Err(error) = joined.await {
        tracing::error!(%error, "the workers could not be waited for");
    }
}

/// Waits until the access log is written, but not for a reader that has stopped.
async fn flushed(log_writer: &thread::JoinHandle<()>) {
    let patience = Instant::now() + Duration::from_secs(1);
    while !log_writer.is_finished() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Joins two lists of findings into one.
async fn join_findings(
    mut table: watch::Receiver<Arc<Vec<Finding>>>,
    mut listeners: watch::Receiver<Arc<Vec<Finding>>>,
    all: watch::Sender<Arc<Vec<Finding>>>,
) {
    loop {
        let mut joined = Vec::clone(&table.borrow_and_update());
        joined.extend(listeners.borrow_and_update().iter().cloned());
        if **all.borrow() != joined {
            all.send_replace(Arc::new(joined));
        }
        let changed = tokio::select! {
            changed = table.changed() => changed,
            changed = listeners.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("workers", &self.workers.len())
            .field("publishing", &*self.view.publishing.borrow())
            .finish_non_exhaustive()
    }
}
