//! Open-loop load, and what came of each request.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use http::Method;
use portolan_loadtest::load::{FailureKind, Load, Observer, Pace, Report, Running};
use tokio::time::Instant;

use crate::cluster::{Cluster, node_port};
use crate::wait;

/// A load at work. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Flow {
    running: Running,
    book: Book,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) report: Report,
    pub(crate) book: Book,
}

/// The same load both ways: through Portolan, and straight to the same Service by kube-proxy.
#[derive(Debug)]
pub(crate) struct Callers {
    pub(crate) portolan: Flow,
    pub(crate) kube_proxy: Flow,
}

/// What came of a load both ways.
#[derive(Debug)]
pub(crate) struct Both {
    pub(crate) portolan: Traffic,
    pub(crate) kube_proxy: Traffic,
}

/// Every request that has ended so far, in the order in which they ended. Clones are the same book.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Vec<Entry>>>);

/// How one request went.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) due: Instant,
    pub(crate) ended: Instant,
    pub(crate) answered: bool,
    pub(crate) failure: Option<FailureKind>,
    pub(crate) status: Option<u16>,
    pub(crate) method: Method,
    pub(crate) upstream: Option<String>,
}

/// GETs of a path through Portolan's NodePort: on kept connections, and one in five on a new one.
pub(crate) fn through_portolan(path: &str, rate: f64) -> Load {
    to(node_port(), path, rate)
}

/// The same straight to a Service of the cluster, by kube-proxy. Portolan takes `/NAME` off; so does this. Returns when
/// kube-proxy serves it: a connection that comes before its rules is lost for good, since the kernel remembers the way of
/// its first packet.
///
/// # Errors
/// When the Service has no address, or nothing answers there within a minute.
pub(crate) fn through_kube_proxy(cluster: &Cluster, service: &str, rate: f64) -> Result<Load> {
    let address = SocketAddr::from((cluster.cluster_ip(service)?, 80));
    wait::until("kube-proxy to serve it", Duration::from_secs(60), || {
        Ok(TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
    })?;
    Ok(to(address, "/", rate))
}

/// The same to any address. The kept connections are enough for answers that take up to 300 ms: with fewer, requests
/// would wait for each other and not for Portolan.
pub(crate) fn to(address: SocketAddr, path: &str, rate: f64) -> Load {
    Load {
        pace: Pace::Open { rate },
        connections: (rate * 0.3).ceil() as usize,
        new_connections: 0.2,
        timeout: Duration::from_secs(10),
        ..Load::to(address, path)
    }
}

impl Flow {
    /// Starts sending, until [`Flow::stop`].
    ///
    /// # Errors
    /// When the load cannot be sent.
    pub(crate) fn start(load: Load) -> Result<Flow> {
        let book = Book::default();
        let pages = book.clone();
        let observer = Observer::new(move |seen| {
            pages.0.lock().unwrap().push(Entry {
                due: seen.due,
                ended: seen.ended,
                answered: seen.answered,
                failure: seen.failure,
                status: seen.status,
                method: seen.method.clone(),
                upstream: seen.upstream.map(str::to_owned),
            });
        });
        Ok(Flow { running: Load { observer: Some(observer), ..load }.start()?, book })
    }

    /// What has come of it so far.
    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    /// The figures since the last call of this, or since the start.
    pub(crate) fn phase(&self) -> Report {
        self.running.phase()
    }

    /// Stops sending, and returns when every request has ended.
    ///
    /// # Errors
    /// When the generator could not work.
    pub(crate) fn stop(self) -> Result<Traffic> {
        self.running.stop();
        let Flow { running, book } = self;
        Ok(Traffic { report: running.wait()?, book })
    }
}

impl Callers {
    /// Starts both, of the Service with this name: what [`to`] makes of the rate, changed by `shape`.
    ///
    /// # Errors
    /// As [`through_kube_proxy`] and [`Flow::start`].
    pub(crate) fn start(
        cluster: &Cluster,
        service: &str,
        rate: f64,
        shape: impl Fn(Load) -> Load,
    ) -> Result<Callers> {
        let portolan = Flow::start(shape(through_portolan(&format!("/{service}/"), rate)))?;
        let kube_proxy = Flow::start(shape(through_kube_proxy(cluster, service, rate)?))?;
        Ok(Callers { portolan, kube_proxy })
    }

    /// Stops both, and returns when every request has ended.
    ///
    /// # Errors
    /// When the generator could not work.
    pub(crate) fn stop(self) -> Result<Both> {
        let Callers { portolan, kube_proxy } = self;
        Ok(Both { portolan: portolan.stop()?, kube_proxy: kube_proxy.stop()? })
    }
}

impl Book {
    /// Every request so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }

    /// Those that were due in this time.
    pub(crate) fn due_between(&self, from: Instant, to: Instant) -> Vec<Entry> {
        self.0.lock().unwrap().iter().filter(|it| from <= it.due && it.due < to).cloned().collect()
    }

    /// The first answer that ended.
    pub(crate) fn first_answer(&self) -> Option<Entry> {
        self.0.lock().unwrap().iter().find(|it| it.answered).cloned()
    }

    /// From when the first request that failed was due to when the last one was, and how many failed in all.
    pub(crate) fn bad(&self) -> (Duration, usize) {
        let entries = self.0.lock().unwrap();
        let due = entries.iter().filter(|it| !it.answered).map(|it| it.due);
        match (due.clone().min(), due.clone().max()) {
            (Some(first), Some(last)) => (last - first, due.count()),
            _ => (Duration::ZERO, 0),
        }
    }
}

/// How many of these answers each upstream gave.
pub(crate) fn by_upstream(entries: &[Entry]) -> std::collections::BTreeMap<String, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for name in entries.iter().filter(|it| it.answered).filter_map(|it| it.upstream.clone()) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}
