//! Sockets opened and closed to follow the table.
//!
//! One task for the whole proxy binds, because only one may ask whether an address is free; the workers get their
//! sockets from it. What is to go is closed first, so that an address can move from one listener to another. What
//! cannot be bound is tried again, and told meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use portolan_model::{Finding, Listener, ListenerId, Protocol, ResourceRef};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::bind::bind;
use crate::config::ProxyConfig;
use crate::table::Published;
use crate::worker::Command;

/// How long after a failure an address is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How one listener stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// What was asked for.
    pub listener: Arc<Listener>,
    /// What came of it.
    #[serde(flatten)]
    pub state: ListenerState,
}

/// Whether a listener accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ListenerState {
    /// It does, on this address (which tells the port where 0 was asked for).
    Bound {
        /// The address.
        local: SocketAddr,
    },
    /// Another process, or another listener, has the address.
    InUse {
        /// What to tell the person who asked for it.
        message: String,
    },
    /// The address may not or cannot be bound.
    Denied {
        /// What to tell the person who asked for it.
        message: String,
    },
}

/// Makes sockets follow the table.
pub(crate) struct Reconciler {
    published: Published,
    workers: Vec<mpsc::Sender<Command>>,
    backlog: u32,
    has_certificate: bool,
    statuses: watch::Sender<Arc<Vec<ListenerStatus>>>,
    findings: watch::Sender<Arc<Vec<Finding>>>,
    known: BTreeMap<ListenerId, ListenerStatus>,
}

impl Reconciler {
    /// Follows what is published, with sockets for these workers.
    pub(crate) fn new(
        published: Published,
        workers: Vec<mpsc::Sender<Command>>,
        config: &ProxyConfig,
        statuses: watch::Sender<Arc<Vec<ListenerStatus>>>,
        findings: watch::Sender<Arc<Vec<Finding>>>,
    ) -> Self {
        Self {
            published,
            workers,
            backlog: config.backlog,
            has_certificate: config.certificate.is_some(),
            statuses,
            findings,
            known: BTreeMap::new(),
        }
    }

    /// Runs until the publisher is gone. Dropping the future leaves the sockets as they are.
    pub(crate) async fn run(mut self) {
        loop {
            self.follow().await;
            let all_well = self.known.values().all(|status| status.local().is_some());
            tokio::select! {
                changed = self.published.generation.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(RETRY), if !all_well => {}
            }
        }
    }

    async fn follow(&mut self) {
        self.published.generation.borrow_and_update();
        let snapshot = Arc::clone(self.published.table.load().snapshot());
        let is_gone =
            |status: &&ListenerStatus| snapshot.listeners.get(&status.listener.id) != Some(&status.listener);
        let gone: Vec<_> = self.known.values().filter(is_gone).cloned().collect();
        let mut changed = !gone.is_empty();
        for status in gone {
            self.close(&status).await;
        }
        for listener in snapshot.listeners.values() {
            let before = self.known.get(&listener.id).map(|status| status.state.clone());
            if matches!(before, Some(ListenerState::Bound { .. })) {
                continue;
            }
            let state = self.open(listener).await;
            changed |= before.as_ref() != Some(&state);
            self.known.insert(listener.id.clone(), ListenerStatus { listener: Arc::clone(listener), state });
        }
        if changed {
            self.tell();
        }
    }

    fn tell(&self) {
        let findings = self.known.values().filter_map(ListenerStatus::finding).collect();
        self.findings.send_replace(Arc::new(findings));
        self.statuses.send_replace(Arc::new(self.known.values().cloned().collect()));
    }

    async fn open(&self, listener: &Arc<Listener>) -> ListenerState {
        if listener.protocol == Protocol::Https && !self.has_certificate {
            let message = format!(
                "{} is to be served over TLS, but there is no certificate: name its files by --tls-cert and --tls-key",
                listener.bind
            );
            return ListenerState::Denied { message };
        }
        let sockets = match bind(listener.bind, self.workers.len(), self.backlog) {
            Ok(sockets) => sockets,
            Err(error) => return refused(listener, &error),
        };
        let local = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(listener.bind);
        for (worker, socket) in self.workers.iter().zip(sockets) {
            self.hand_over(worker, listener, socket).await;
        }
        tracing::info!(listener = %listener.id, address = %local, role = ?listener.role, "listening");
        ListenerState::Bound { local }
    }

    async fn hand_over(&self, worker: &mpsc::Sender<Command>, listener: &Arc<Listener>, socket: TcpListener) {
        let command = Command::Listen { listener: Arc::clone(listener), socket };
        if worker.send(command).await.is_err() {
            tracing::debug!("a worker is gone, and so needs no socket");
        }
    }

    async fn close(&mut self, status: &ListenerStatus) {
        self.known.remove(&status.listener.id);
        if status.local().is_none() {
            return;
        }
        for worker in &self.workers {
            let (closed, done) = oneshot::channel();
            if worker.send(Command::Close { id: status.listener.id.clone(), closed }).await.is_ok() {
                // A worker that is gone has closed it as well.
                done.await.ok();
            }
        }
        tracing::info!(listener = %status.listener.id, "no longer listening");
    }
}

impl ListenerStatus {
    /// The address that it accepts on, if it does.
    pub fn local(&self) -> Option<SocketAddr> {
        match self.state {
            ListenerState::Bound { local } => Some(local),
            ListenerState::InUse { .. } | ListenerState::Denied { .. } => None,
        }
    }

    fn finding(&self) -> Option<Finding> {
        let (reason, message) = match &self.state {
            ListenerState::Bound { .. } => return None,
            ListenerState::InUse { message } => ("AddressInUse", message),
            ListenerState::Denied { message } => ("AddressDenied", message),
        };
        let listener = ResourceRef::new("Listener", "", self.listener.id.as_str());
        Some(Finding::error(&listener, "bind", reason, message.clone()))
    }
}

fn refused(listener: &Listener, error: &io::Error) -> ListenerState {
    let address = listener.bind;
    if error.kind() == io::ErrorKind::AddrInUse {
        let message = format!(
            "cannot listen on {address}: another process already listens there (perhaps a second gateway). Stop it, \
             or choose another port; `ss -ltnp 'sport = :{}'` shows who it is",
            address.port()
        );
        return ListenerState::InUse { message };
    }
    let what_to_do = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability NET_BIND_SERVICE; choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "this host has no such address; choose one of its own, or 0.0.0.0",
        _ => "the address cannot be used here",
    };
    ListenerState::Denied { message: format!("cannot listen on {address}: {error}; {what_to_do}") }
}
