//! Snapshots as Services make them: a route by path and one by name each.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_model::{
    BackendRef, Cluster, ClusterId, ClusterPolicy, Endpoint, Filter, HostMatch, Hostname, Listener,
    ListenerId, Match, PathMatch, PortMatch, Protocol, Rank, ResourceRef, Role, Roles, Route, RouteId, Rule,
    Snapshot,
};

/// The name of a Service. As long as any other, so that the length of a key is no difference between cases.
pub(crate) fn name(number: u32) -> String {
    format!("orders-{number:05}")
}

/// The Service that requests go to: in the middle of any number of them.
pub(crate) fn asked(services: u32) -> u32 {
    services / 2
}

/// So many Services with so many endpoints each.
pub(crate) fn services(services: u32, endpoints: u32) -> Snapshot {
    let mut snapshot = Snapshot { generation: 1, ..Snapshot::default() };
    let policy = Arc::default();
    for number in 0..services {
        let addresses = (0..endpoints).map(|endpoint| address(number * endpoints + endpoint));
        put(&mut snapshot, number, addresses, &policy);
    }
    snapshot
}

/// Puts a Service's cluster and routes into a snapshot.
pub(crate) fn put(
    snapshot: &mut Snapshot,
    number: u32,
    addresses: impl Iterator<Item = SocketAddr>,
    policy: &Arc<ClusterPolicy>,
) {
    let name = name(number);
    let source = ResourceRef::new("Service", "shop", name.as_str());
    let id = ClusterId::new("shop", &name, 80);
    let cluster = Cluster {
        id: id.clone(),
        source: source.clone(),
        endpoints: addresses.map(Endpoint::new).collect(),
        policy: Arc::clone(policy),
    };
    snapshot.clusters.insert(id.clone(), Arc::new(cluster));
    let prefix = format!("/{name}");
    let by_path = Match { path: PathMatch::Prefix(prefix.clone()), ..Match::default() };
    let parts = [
        ("path", Roles::ALL, Vec::new(), by_path, vec![Filter::StripPrefix(prefix)]),
        ("name", Roles::CLUSTER, own_names(&name), Match::default(), Vec::new()),
    ];
    for (part, roles, hosts, matching, filters) in parts {
        let route = RouteId::new(format!("Service/shop/{name}/{part}"));
        let specificity = [u32::from(part == "name"), u32::from(part == "path"), 0];
        let rule = Rule {
            rank: Rank {
                order: 0,
                specificity: Reverse(specificity),
                created: 0,
                tie: (route.as_str().into(), 0),
            },
            matches: vec![matching],
            filters,
            backends: vec![BackendRef { cluster: id.clone(), weight: 1 }],
        };
        let route = Route { id: route, source: source.clone(), roles, hosts, rules: vec![rule] };
        snapshot.routes.insert(route.id.clone(), Arc::new(route));
    }
}

/// Puts a listener for this role into a snapshot, at a port that the kernel chooses.
pub(crate) fn listen(snapshot: &mut Snapshot, role: Role) {
    let id = ListenerId::new("bench");
    let listener =
        Listener { id: id.clone(), bind: ([127, 0, 0, 1], 0).into(), role, protocol: Protocol::Http };
    snapshot.listeners.insert(id, Arc::new(listener));
}

/// The names by which callers inside the Kubernetes cluster know a Service.
fn own_names(name: &str) -> Vec<HostMatch> {
    let names =
        [name.to_owned(), format!("{name}.shop"), format!("{name}.shop.svc"), full_name(name)].into_iter();
    let both = |host: String| {
        let host = Hostname::parse(&host).expect("the name of a Service is a host name");
        [PortMatch::Absent, PortMatch::Exact(80)].map(|port| HostMatch { host: host.clone(), port })
    };
    names.flat_map(both).collect()
}

/// The longest name by which callers inside the Kubernetes cluster know a Service.
pub(crate) fn full_name(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

/// An address where nobody is. Sorted as the numbers are.
pub(crate) fn address(number: u32) -> SocketAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    ([10, high, middle, low], 80).into()
}
