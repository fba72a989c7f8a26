//! One immutable table.

use std::sync::Arc;

use http::{HeaderMap, Method};
use portolan_model::{Finding, Listener, Role, Snapshot};
use tokio::time::Instant;

use super::compile::{self, Changes, CompiledRoute, CompiledRule};
use super::hosts::HostIndex;
use crate::cluster::Clusters;

/// Everything that decides where a request goes, of one generation. Never changed, only replaced; the endpoints behind
/// it move on by themselves ([`crate::cluster::Cluster`]).
#[derive(Debug)]
pub struct RoutingTable {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) clusters: Clusters,
    pub(super) routes: Arc<Routes>,
}

/// The part that follows from routes alone, and outlives changes of endpoints.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By id.
    pub(super) all: Vec<Arc<CompiledRoute>>,
    edge: HostIndex,
    cluster: HostIndex,
    findings: Arc<Vec<Finding>>,
}

/// What of a request decides its rule.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The authority's host, in lower case and without port; none in an HTTP/1.0 request without `Host`.
    pub host: Option<&'a str>,
    /// The authority's port, where it names one.
    pub port: Option<u16>,
    /// Whether only routes that name the request's host may answer: its target came in absolute form, so it was meant
    /// for that host and not for whatever this gateway has at the path.
    pub named_only: bool,
    /// The method.
    pub method: &'a Method,
    /// The path, as it came.
    pub path: &'a str,
    /// The query without its question mark, as it came.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

/// Why no rule answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMatch {
    /// No rule matches.
    #[error("no route matches the request")]
    NoRoute,
    /// The host is known, but not with this port.
    #[error("the host is known, but not with this port")]
    UnknownPort,
}

impl RoutingTable {
    /// The table before the first snapshot: it matches nothing.
    pub fn empty() -> Self {
        Self { snapshot: Arc::default(), clusters: Clusters::default(), routes: Arc::default() }
    }

    /// Makes the table of a snapshot, whose clusters `clusters` has already followed. It never fails as a whole: what
    /// cannot be compiled is told as findings and concerns its rule alone. Where neither a route changed nor a cluster
    /// came or went, the routes of the `previous` table are kept as they are.
    pub fn compile(
        snapshot: &Arc<Snapshot>,
        clusters: &Clusters,
        previous: &Self,
        now: Instant,
    ) -> (Self, Arc<Vec<Finding>>) {
        let same_routes =
            snapshot.routes.ptr_eq(&previous.snapshot.routes) && clusters.came_or_went().is_empty();
        let routes = if same_routes {
            Arc::clone(&previous.routes)
        } else {
            Arc::new(Routes::follow(
                &previous.routes,
                compile::routes(snapshot, clusters, &previous.routes.all, now),
            ))
        };
        let findings = Arc::clone(&routes.findings);
        (Self { snapshot: Arc::clone(snapshot), clusters: clusters.clone(), routes }, findings)
    }

    /// The generation of the snapshot that it was made of.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// The snapshot that it was made of.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Where to accept.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.snapshot.listeners.values()
    }

    /// The clusters at work.
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// Whether both tables route alike because they share the compiled routes.
    pub fn same_routes(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
    }

    /// The rule that answers a request at a listener of this role: of all rules that match, the one of the lowest
    /// rank. Allocates nothing.
    ///
    /// # Errors
    /// No rule matches, or the host is known but not with this port.
    pub fn find_http(&self, role: Role, request: &RequestView<'_>) -> Result<&Arc<CompiledRule>, NoMatch> {
        match role {
            Role::Edge => self.routes.edge.find(request),
            Role::Cluster => self.routes.cluster.find(request),
        }
    }
}

// === impl Routes ===

impl Routes {
    fn follow(before: &Self, all: Vec<Arc<CompiledRoute>>) -> Self {
        let changes = Changes::between(&before.all, &all);
        let findings = all.iter().flat_map(|route| route.findings.iter().cloned()).collect();
        Self {
            edge: HostIndex::follow(&before.edge, &changes, &all, Role::Edge),
            cluster: HostIndex::follow(&before.cluster, &changes, &all, Role::Cluster),
            findings: Arc::new(findings),
            all,
        }
    }
}
