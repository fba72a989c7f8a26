//! The table as the admin pages show it.

use std::net::SocketAddr;

use portolan_model::{ClusterId, Readiness, ResourceRef, Route};
use serde::Serialize;
use tokio::time::Instant;

use super::RoutingTable;
use crate::cluster::{Cluster, Health};

/// A table with everything in it, to be serialised.
#[derive(Debug, Serialize)]
pub struct TableView<'a> {
    /// The generation in use.
    pub generation: u64,
    /// By id.
    pub routes: Vec<RouteView<'a>>,
    /// By id.
    pub clusters: Vec<ClusterView>,
}

/// A route: what was asked for, and how its rules stand.
#[derive(Debug, Serialize)]
pub struct RouteView<'a> {
    /// What was asked for.
    #[serde(flatten)]
    pub route: &'a Route,
    /// The rules as they are compiled.
    pub compiled: Vec<RuleView<'a>>,
}

/// A compiled rule.
#[derive(Debug, Serialize)]
pub struct RuleView<'a> {
    /// Its number within the route.
    pub number: u32,
    /// How many of its alternatives could be compiled; 0 means that it matches nothing.
    pub alternatives: usize,
    /// Backends that do not exist.
    pub missing: Vec<&'a ClusterId>,
}

/// A cluster at work.
#[derive(Debug, Serialize)]
pub struct ClusterView {
    /// Its name.
    pub id: ClusterId,
    /// The object that it stands for.
    pub source: ResourceRef,
    /// The generation that brought its present state.
    pub generation: u64,
    /// How requests are spread, retried, timed and checked.
    pub policy: std::sync::Arc<portolan_model::ClusterPolicy>,
    /// By address.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint at work.
#[derive(Debug, Serialize)]
pub struct EndpointView {
    /// Where it is.
    pub address: SocketAddr,
    /// What stands behind the address, where the source knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<std::sync::Arc<str>>,
    /// What its source says.
    pub readiness: Readiness,
    /// What its answers and the active checks say.
    pub health: Health,
    /// For an ejected one, the milliseconds until it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_for_ms: Option<u64>,
    /// Its share.
    pub weight: u16,
    /// Lower is preferred.
    pub priority: u8,
    /// Requests that run on it.
    pub in_flight: u32,
}

/// How many endpoints are in which state; each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Ready and working.
    pub ready: u64,
    /// Ready, but left out because their answers failed.
    pub ejected: u64,
    /// Ready, but left out because active checks fail.
    pub failed: u64,
    /// On their way out.
    pub draining: u64,
    /// Not ready.
    pub not_ready: u64,
}

impl RoutingTable {
    /// Everything in the table, with the health and load of this moment.
    pub fn view(&self, now: Instant) -> TableView<'_> {
        let routes = self.routes.all.iter().map(|route| RouteView {
            route: &route.said,
            compiled: route
                .rules
                .iter()
                .map(|rule| RuleView {
                    number: rule.number,
                    alternatives: rule.matches.len(),
                    missing: rule
                        .backends()
                        .map(|(cluster, _)| cluster.id())
                        .filter(|id| self.is_missing(id))
                        .collect(),
                })
                .collect(),
        });
        TableView {
            generation: self.generation(),
            routes: routes.collect(),
            clusters: self.clusters.iter().map(|cluster| ClusterView::of(cluster, now)).collect(),
        }
    }

    /// Counts the endpoints by state.
    pub fn census(&self, now: Instant) -> Census {
        let mut census = Census::default();
        for cluster in self.clusters.iter() {
            for (endpoint, standing) in cluster.state().members() {
                *match (standing.readiness, endpoint.health(now)) {
                    (Readiness::NotReady, _) => &mut census.not_ready,
                    (Readiness::Draining, _) => &mut census.draining,
                    (Readiness::Ready, Health::Healthy) => &mut census.ready,
                    (Readiness::Ready, Health::Failed) => &mut census.failed,
                    (Readiness::Ready, Health::Ejected | Health::Returning) => &mut census.ejected,
                } += 1;
            }
        }
        census
    }

    fn is_missing(&self, id: &ClusterId) -> bool {
        self.clusters.find(id).is_none()
    }
}

impl ClusterView {
    pub(super) fn of(cluster: &Cluster, now: Instant) -> Self {
        let state = cluster.state();
        let endpoints = state.members().map(|(endpoint, standing)| EndpointView {
            address: endpoint.address(),
            uid: endpoint.key().uid.clone(),
            readiness: standing.readiness,
            health: endpoint.health(now),
            ejected_for_ms: endpoint.ejected_until().map(|until| {
                u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
            }),
            weight: standing.weight,
            priority: standing.priority,
            in_flight: endpoint.in_flight(),
        });
        let endpoints = endpoints.collect();
        Self {
            id: cluster.id().clone(),
            source: state.source.clone(),
            generation: state.generation,
            policy: std::sync::Arc::clone(&state.policy),
            endpoints,
        }
    }
}
