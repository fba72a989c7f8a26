//! One consistent picture of everything.

use std::sync::Arc;
#[allow(
    clippy::disallowed_types,
    reason = "the model has no runtime; tokio's Instant converts from and to this"
)]
use std::time::Instant;

use imbl::OrdMap;

use crate::{Cluster, ClusterId, Listener, ListenerId, Route, RouteId};

/// One consistent, immutable picture. Maps share structure with the snapshot before, and unchanged parts keep their
/// [`Arc`], so that a reader finds what changed without looking at the rest (`OrdMap::diff`, `Arc::ptr_eq`).
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows by one with each published snapshot; 0 is the empty one before the first.
    pub generation: u64,
    /// When the oldest change that this snapshot is the first to show was received from its source: where the clock of
    /// convergence starts.
    #[allow(
        clippy::disallowed_types,
        reason = "the model has no runtime; tokio's Instant converts from and to this"
    )]
    pub changed_at: Option<Instant>,
    /// Where to accept.
    pub listeners: OrdMap<ListenerId, Arc<Listener>>,
    /// What is asked where.
    pub routes: OrdMap<RouteId, Arc<Route>>,
    /// Who answers.
    pub clusters: OrdMap<ClusterId, Arc<Cluster>>,
}

impl Snapshot {
    /// Whether both pictures show the same, whatever their generation.
    pub fn same_content(&self, other: &Self) -> bool {
        self.listeners == other.listeners && self.routes == other.routes && self.clusters == other.clusters
    }
}
