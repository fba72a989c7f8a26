//! Snapshot → routes ready to be indexed.
//!
//! A route that did not change, and none of whose clusters came or went, is taken over from the table before, with its
//! regular expressions. What cannot be compiled becomes a finding on the route's source and concerns its rule alone.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portolan_model::{BackendRef, Filter, Finding, Rank, ResourceRef, Route, RouteId, Rule, Snapshot};
use tokio::time::Instant;

use super::matching::{CompiledMatch, Fault};
use crate::cluster::{Cluster, Clusters};

/// One rule, ready to answer.
pub struct CompiledRule {
    /// The route that it belongs to.
    pub route: RouteId,
    /// The object that asked for it.
    pub source: ResourceRef,
    /// Its number within the route, from 0.
    pub number: u32,
    /// A number for the route's metrics: stays while the route's id stays, and is never given to another.
    pub metrics: u64,
    /// What is done to the request and its response, in this order on the way in and in reverse on the way out.
    pub filters: Box<[Filter]>,
    /// Its place among all rules; lower wins.
    pub rank: Rank,
    pub(super) matches: Box<[CompiledMatch]>,
    backends: Box<[Backend]>,
    /// The sum of the backends' weights.
    total: u64,
}

struct Backend {
    cluster: Arc<Cluster>,
    weight: u32,
}

/// One route with its compiled rules and what was wrong with it.
#[derive(Debug)]
pub(super) struct CompiledRoute {
    pub(super) said: Arc<Route>,
    pub(super) metrics: u64,
    pub(super) rules: Box<[Arc<CompiledRule>]>,
    pub(super) findings: Box<[Finding]>,
}

/// What changed from one list of routes to the next. A route that changed both went and came.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    /// By id.
    pub(super) gone: Vec<&'a Arc<CompiledRoute>>,
    /// By id.
    pub(super) come: Vec<&'a Arc<CompiledRoute>>,
}

/// Compiles every route of the snapshot, in the order of their ids.
pub(super) fn routes(
    snapshot: &Snapshot,
    clusters: &Clusters,
    previous: &[Arc<CompiledRoute>],
    now: Instant,
) -> Vec<Arc<CompiledRoute>> {
    let mut known = previous.iter().peekable();
    let compile_one = |said: &Arc<Route>| {
        while known.next_if(|route| route.said.id < said.id).is_some() {}
        let before = known.next_if(|route| route.said.id == said.id);
        match before {
            Some(route) if Arc::ptr_eq(&route.said, said) && !route.names_any_of(clusters) => {
                Arc::clone(route)
            }
            before => {
                let metrics = before.map_or_else(next_metrics, |route| route.metrics);
                Arc::new(CompiledRoute::new(said, metrics, clusters, now))
            }
        }
    };
    snapshot.routes.values().map(compile_one).collect()
}

fn next_metrics() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

// === impl Changes ===

impl<'a> Changes<'a> {
    /// Compares two lists, both by id.
    pub(super) fn between(before: &'a [Arc<CompiledRoute>], after: &'a [Arc<CompiledRoute>]) -> Self {
        let mut changes = Self { gone: Vec::new(), come: Vec::new() };
        let mut known = before.iter().peekable();
        for route in after {
            while let Some(gone) = known.next_if(|known| known.said.id < route.said.id) {
                changes.gone.push(gone);
            }
            let same = known.next_if(|known| known.said.id == route.said.id);
            if !same.is_some_and(|same| Arc::ptr_eq(same, route)) {
                changes.gone.extend(same);
                changes.come.push(route);
            }
        }
        changes.gone.extend(known);
        changes
    }

    /// Whether this route went.
    pub(super) fn is_gone(&self, route: &CompiledRoute) -> bool {
        self.gone.binary_search_by(|gone| gone.said.id.cmp(&route.said.id)).is_ok()
    }
}

// === impl CompiledRoute ===

impl CompiledRoute {
    fn new(said: &Arc<Route>, metrics: u64, clusters: &Clusters, now: Instant) -> Self {
        let mut findings = Vec::new();
        let rules = (0..).zip(&said.rules).map(|(number, rule)| {
            let backends = backends(said, number, rule, clusters, &mut findings, now);
            Arc::new(CompiledRule {
                route: said.id.clone(),
                source: said.source.clone(),
                number,
                metrics,
                filters: rule.filters.clone().into(),
                rank: rule.rank.clone(),
                matches: matches(said, number, rule, &mut findings),
                total: backends.iter().map(|backend| u64::from(backend.weight)).sum(),
                backends,
            })
        });
        let rules = rules.collect();
        Self { said: Arc::clone(said), metrics, rules, findings: findings.into() }
    }

    /// Whether a cluster that it names came or went.
    fn names_any_of(&self, clusters: &Clusters) -> bool {
        let came_or_went = clusters.came_or_went();
        let mut named = self.said.rules.iter().flat_map(|rule| &rule.backends);
        !came_or_went.is_empty() && named.any(|backend| came_or_went.contains(&backend.cluster))
    }
}

/// The alternatives that can be compiled. A rule that asks for something, none of which can be, matches nothing.
fn matches(route: &Route, number: u32, rule: &Rule, findings: &mut Vec<Finding>) -> Box<[CompiledMatch]> {
    if rule.matches.is_empty() {
        return CompiledMatch::new(&portolan_model::Match::default()).into_iter().collect();
    }
    let mut compiled = Vec::with_capacity(rule.matches.len());
    for (at, said) in rule.matches.iter().enumerate() {
        match CompiledMatch::new(said) {
            Ok(ready) => compiled.push(ready),
            Err(fault) => findings.push(of_match(route, number, at, fault)),
        }
    }
    compiled.into()
}

fn of_match(route: &Route, number: u32, at: usize, fault: Fault) -> Finding {
    let Fault { field, reason, message } = fault;
    let field = format!("rules[{number}].matches[{at}].{field}");
    let message = format!("{message}; this match of route {} is left out, mend it", route.id);
    Finding::error(&route.source, field, reason, message)
}

fn backends(
    route: &Route,
    number: u32,
    rule: &Rule,
    clusters: &Clusters,
    findings: &mut Vec<Finding>,
    now: Instant,
) -> Box<[Backend]> {
    let resolve = |(at, backend): (usize, &BackendRef)| {
        let cluster = clusters.find(&backend.cluster).map(Arc::clone).unwrap_or_else(|| {
            findings.push(missing_cluster(route, number, at, backend));
            Arc::new(Cluster::missing(&backend.cluster, &route.source, now))
        });
        Backend { cluster, weight: backend.weight }
    };
    rule.backends.iter().enumerate().map(resolve).collect()
}

fn missing_cluster(route: &Route, number: u32, at: usize, backend: &BackendRef) -> Finding {
    let field = format!("rules[{number}].backends[{at}]");
    let message = format!(
        "route {} sends requests to {}, which does not exist; they are answered with 503 until it does",
        route.id, backend.cluster
    );
    Finding::error(&route.source, field, "UnknownCluster", message)
}

// === impl CompiledRule ===

impl CompiledRule {
    /// The cluster that answers, by weight: `random` is spread over the whole range of its type. None if the rule has
    /// no backends, or only such of weight 0.
    pub fn backend(&self, random: u32) -> Option<&Arc<Cluster>> {
        let mut point = (u64::from(random) * self.total) >> 32;
        for backend in &self.backends {
            match point.checked_sub(u64::from(backend.weight)) {
                Some(rest) => point = rest,
                None => return Some(&backend.cluster),
            }
        }
        None
    }

    /// Every cluster that may answer, with its weight.
    pub fn backends(&self) -> impl Iterator<Item = (&Arc<Cluster>, u32)> {
        self.backends.iter().map(|backend| (&backend.cluster, backend.weight))
    }

    /// The order of all rules. Sources make ranks differ; should two be the same, the order is still total.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let by_name = || (&self.route, self.number).cmp(&(&other.route, other.number));
        self.rank.cmp(&other.rank).then_with(by_name)
    }
}

impl fmt::Debug for CompiledRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompiledRule({}#{})", self.route, self.number)
    }
}
