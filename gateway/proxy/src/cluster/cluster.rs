//! A set of endpoints at work.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use portolan_model::{self as model, ClusterId, ClusterPolicy, Readiness, ResourceRef};
use tokio::time::Instant;

use super::Endpoint;

/// A cluster at work: shared by the rules that name it, the balancers and the prober. It lives as long as its id is in
/// the snapshots; an id that went and came back is a new cluster.
#[derive(Debug)]
pub struct Cluster {
    id: ClusterId,
    uid: u64,
    /// Where round robin starts, so that several gateways do not all start at the same endpoint.
    phase: u64,
    state: ArcSwap<ClusterState>,
    epoch: AtomicU64,
    retired: AtomicBool,
    ejecting: Mutex<()>,
    ejections: AtomicU64,
}

/// Everything of a cluster that must agree, behind one swap.
#[derive(Debug)]
pub struct ClusterState {
    /// The snapshot that brought this state.
    pub generation: u64,
    /// The object that the cluster stands for.
    pub source: ResourceRef,
    /// How requests are spread, retried, timed and checked.
    pub policy: Arc<ClusterPolicy>,
    /// Every known endpoint, sorted by key, each key once.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// What the snapshot says of each endpoint (readiness, weight, priority), in the order of `endpoints`.
    pub standings: Arc<[model::Endpoint]>,
}

impl Cluster {
    /// A cluster with the endpoints that `said` names.
    pub(crate) fn new(said: &model::Cluster, generation: u64, now: Instant) -> Self {
        let state = ClusterState::first(said, generation, now);
        Self {
            id: said.id.clone(),
            uid: next_uid(),
            phase: fastrand::u64(..),
            state: ArcSwap::from_pointee(state),
            epoch: AtomicU64::new(1),
            retired: AtomicBool::new(false),
            ejecting: Mutex::new(()),
            ejections: AtomicU64::new(0),
        }
    }

    /// Stands in for a cluster that a rule names and no snapshot has: it has no endpoints. It counts as retired from
    /// the start, since it is not among the publisher's clusters.
    pub(crate) fn missing(id: &ClusterId, source: &ResourceRef, now: Instant) -> Self {
        let said = model::Cluster {
            id: id.clone(),
            source: source.clone(),
            endpoints: Arc::from([]),
            policy: Arc::default(),
        };
        let cluster = Self::new(&said, 0, now);
        cluster.retire();
        cluster
    }

    /// Its name.
    pub fn id(&self) -> &ClusterId {
        &self.id
    }

    /// A number that no other cluster of this process has or had.
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// The present state. Hold it as long as needed: it does not change.
    pub fn state(&self) -> Arc<ClusterState> {
        self.state.load_full()
    }

    /// Whether it is in no snapshot any more.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Acquire)
    }

    /// Moves whenever the usable set may have changed.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Tells the balancers that the usable set may have changed.
    pub(crate) fn touch(&self) {
        self.epoch.fetch_add(1, Release);
    }

    /// Counts an ejection.
    pub(crate) fn count_ejection(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    /// How often one of its endpoints was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    pub(crate) fn phase(&self) -> u64 {
        self.phase
    }

    /// Swaps the state. The epoch moves after it, so that whoever sees the new epoch finds the new state.
    pub(crate) fn replace(&self, state: Arc<ClusterState>) {
        self.state.store(state);
        self.touch();
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Release);
        self.touch();
    }

    /// One ejection is decided at a time, so that two workers together do not eject more than the policy allows.
    pub(crate) fn ejecting(&self) -> MutexGuard<'_, ()> {
        self.ejecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next_uid() -> u64 {
    static NEXT_UID: AtomicU64 = AtomicU64::new(1);
    NEXT_UID.fetch_add(1, Relaxed)
}

// === impl ClusterState ===

impl ClusterState {
    fn first(said: &model::Cluster, generation: u64, now: Instant) -> Self {
        let standings = normal(&said.endpoints);
        let endpoints = standings
            .iter()
            .map(|said_of| {
                let endpoint = Endpoint::new(&said.id, said_of.key.clone(), now);
                endpoint.set_draining(said_of.readiness == Readiness::Draining);
                Arc::new(endpoint)
            })
            .collect();
        Self {
            generation,
            source: said.source.clone(),
            policy: Arc::clone(&said.policy),
            endpoints,
            standings,
        }
    }

    /// The state that follows on this one: endpoints of a known key are the same, and `left` gets those that went.
    pub(crate) fn next(
        &self,
        said: &model::Cluster,
        generation: u64,
        now: Instant,
        left: &mut Vec<Arc<Endpoint>>,
    ) -> Self {
        let standings = normal(&said.endpoints);
        let mut endpoints = Vec::with_capacity(standings.len());
        let mut known = self.endpoints.iter().zip(self.standings.iter()).peekable();
        for said_of in standings.iter() {
            while let Some((gone, _)) = known.next_if(|(_, standing)| standing.key < said_of.key) {
                left.push(Arc::clone(gone));
            }
            let kept = known.next_if(|(_, standing)| standing.key == said_of.key);
            let endpoint = match kept {
                Some((endpoint, _)) => Arc::clone(endpoint),
                None => Arc::new(Endpoint::new(&said.id, said_of.key.clone(), now)),
            };
            let was_ready = kept.is_some_and(|(_, standing)| standing.readiness == Readiness::Ready);
            if said_of.readiness == Readiness::Ready && !was_ready {
                endpoint.became_ready(now);
            }
            endpoint.set_draining(said_of.readiness == Readiness::Draining);
            endpoints.push(endpoint);
        }
        left.extend(known.map(|(gone, _)| Arc::clone(gone)));
        Self {
            generation,
            source: said.source.clone(),
            policy: Arc::clone(&said.policy),
            endpoints: endpoints.into(),
            standings,
        }
    }

    /// Each endpoint with what the snapshot says of it.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<Endpoint>, &model::Endpoint)> {
        self.endpoints.iter().zip(self.standings.iter())
    }
}

/// The model promises order and no duplicates; a source that breaks the promise costs a copy, not identity.
fn normal(endpoints: &Arc<[model::Endpoint]>) -> Arc<[model::Endpoint]> {
    if endpoints.is_sorted_by(|a, b| a.key < b.key) {
        return Arc::clone(endpoints);
    }
    let mut sorted = endpoints.to_vec();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    sorted.dedup_by(|a, b| a.key == b.key);
    sorted.into()
}
