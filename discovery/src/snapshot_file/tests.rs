//! What is written is read back, and what was not written so is refused.

mod garbage;
mod keeping;
mod round_trip;

use portolan_model::{
    BackendRef, ClusterPolicy, Endpoint, Filter, HostMatch, Hostname, Match, PathMatch, PortMatch, Rank,
    ResourceRef, Roles, Rule,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn origin() -> Origin {
    [("kubernetes", "https://10.96.0.1/"), ("expose", "annotated")].map(|(a, b)| (a.into(), b.into())).into()
}

/// A snapshot of so many services, with so many endpoints each.
fn snapshot(services: usize, endpoints: usize) -> Snapshot {
    let mut snapshot = Snapshot { generation: 7, ..Snapshot::default() };
    let policy = Arc::<ClusterPolicy>::default();
    for number in 0..services {
        let name = format!("service-{number}");
        let id = ClusterId::new("shop", &name, 80);
        let source = ResourceRef::new("Service", "shop", name.as_str());
        let endpoint = |n: usize| {
            let n = number * endpoints + n;
            let [_, a, b, c] = (n as u32).to_be_bytes();
            let mut endpoint = Endpoint::new(([10, a, b, c], 8080).into());
            endpoint.key.uid = Some(format!("{n:08x}-55b1-4e11-9dbf-08d2c9f3a3f5").into());
            endpoint
        };
        let cluster = Cluster {
            id: id.clone(),
            source: source.clone(),
            endpoints: (0..endpoints).map(endpoint).collect(),
            policy: Arc::clone(&policy),
        };
        let route = Route {
            id: RouteId::new(format!("Service/shop/{name}")),
            source,
            roles: Roles::EDGE,
            hosts: vec![HostMatch { host: Hostname::parse("*.shop.example").unwrap(), port: PortMatch::Any }],
            rules: vec![Rule {
                rank: Rank {
                    order: 0,
                    specificity: std::cmp::Reverse([0, 9, 0]),
                    created: 1_750_000_000,
                    tie: (name.as_str().into(), 0),
                },
                matches: vec![Match { path: PathMatch::Prefix(format!("/{name}")), ..Match::default() }],
                filters: vec![Filter::StripPrefix(format!("/{name}"))],
                backends: vec![BackendRef { cluster: id.clone(), weight: 1 }],
            }],
        };
        snapshot.clusters.insert(id, Arc::new(cluster));
        snapshot.routes.insert(route.id.clone(), Arc::new(route));
    }
    snapshot
}

fn bytes(snapshot: &Snapshot, at: Timestamp) -> Vec<u8> {
    let taken = Taken { at, generation: snapshot.generation, version: "0.1.0".to_owned(), origin: origin() };
    let mut bytes = Vec::new();
    format::encode(&mut bytes, &taken, snapshot).unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> Result<LastPicture, Refusal> {
    format::decode(bytes, format::taken(bytes)?)
}
