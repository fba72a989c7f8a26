//! The table against its oracle, and the publisher's promises.

mod lookup;
mod oracle;
mod publishing;

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, Method};
use portolan_model::{
    BackendRef, Cluster, ClusterId, ClusterPolicy, Endpoint, HostMatch, Hostname, Match, PathMatch,
    PortMatch, Rank, ResourceRef, Role, Roles, Route, RouteId, Rule, Snapshot,
};
use tokio::time::Instant;

use super::{CompiledRule, NoMatch, Published, Publisher, RequestView, RoutingTable};
use crate::cluster::Clusters;

fn service(name: &str) -> ResourceRef {
    ResourceRef::new("Service", "shop", name)
}

fn cluster_id(name: &str) -> ClusterId {
    ClusterId::new("shop", name, 80)
}

fn cluster(name: &str, addresses: &[&str]) -> Arc<Cluster> {
    let mut endpoints = addresses.iter().map(|at| Endpoint::new(at.parse().unwrap())).collect::<Vec<_>>();
    endpoints.sort_by(|a, b| a.key.cmp(&b.key));
    Arc::new(Cluster {
        id: cluster_id(name),
        source: service(name),
        endpoints: endpoints.into(),
        policy: ClusterPolicy::default().into(),
    })
}

fn host(name: &str, port: PortMatch) -> HostMatch {
    HostMatch { host: Hostname::parse(name).unwrap(), port }
}

fn rank(route: &str, number: u32, specificity: [u32; 3]) -> Rank {
    Rank { order: 0, specificity: Reverse(specificity), created: 0, tie: (route.into(), number) }
}

fn rule(rank: Rank, matches: Vec<Match>, to: &str) -> Rule {
    let backends = vec![BackendRef { cluster: cluster_id(to), weight: 1 }];
    Rule { rank, matches, filters: Vec::new(), backends }
}

fn path(path: PathMatch) -> Match {
    Match { path, ..Match::default() }
}

fn prefix(text: &str) -> Match {
    path(PathMatch::Prefix(text.to_owned()))
}

fn route(id: &str, hosts: Vec<HostMatch>, rules: Vec<Rule>) -> Arc<Route> {
    Arc::new(Route { id: RouteId::new(id), source: service(id), roles: Roles::ALL, hosts, rules })
}

/// A route for `/NAME/**` of any host.
fn path_route(name: &str) -> Arc<Route> {
    let matches = vec![prefix(&format!("/{name}"))];
    route(name, Vec::new(), vec![rule(rank(name, 0, [0, name.len() as u32 + 1, 0]), matches, name)])
}

fn snapshot(generation: u64, routes: &[Arc<Route>], clusters: &[Arc<Cluster>]) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation,
        routes: routes.iter().map(|route| (route.id.clone(), Arc::clone(route))).collect(),
        clusters: clusters.iter().map(|cluster| (cluster.id.clone(), Arc::clone(cluster))).collect(),
        ..Snapshot::default()
    })
}

fn table(routes: &[Arc<Route>]) -> RoutingTable {
    let now = Instant::now();
    let snapshot = snapshot(1, routes, &[]);
    let mut clusters = Clusters::default();
    assert!(clusters.follow(&Snapshot::default(), &snapshot, now).is_empty());
    RoutingTable::compile(&snapshot, &clusters, &RoutingTable::empty(), now).0
}

/// A `GET` of a URL-like text: `HOST:PORT/PATH?QUERY`, each part but the path optional.
#[derive(Debug)]
struct Asked {
    host: Option<String>,
    port: Option<u16>,
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

fn get(url: &str) -> Asked {
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query.to_owned())));
    let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().unwrap())),
        None => (authority, None),
    };
    Asked {
        host: (!host.is_empty()).then(|| host.to_owned()),
        port,
        method: Method::GET,
        path: path.to_owned(),
        query,
        headers: HeaderMap::new(),
    }
}

impl Asked {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            named_only: false,
            host: self.host.as_deref(),
            port: self.port,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }

    /// The route and number of the rule that answers, as `ROUTE#NUMBER`, or why none does.
    fn at(&self, table: &RoutingTable, role: Role) -> String {
        match table.find_http(role, &self.view()) {
            Ok(rule) => name(rule),
            Err(NoMatch::NoRoute) => "no route".to_owned(),
            Err(NoMatch::UnknownPort) => "unknown port".to_owned(),
        }
    }
}

fn name(rule: &CompiledRule) -> String {
    format!("{}#{}", rule.route, rule.number)
}

fn publisher() -> (Publisher, Published) {
    Publisher::new(|_| ())
}
