//! Clusters for tests.

use std::sync::Arc;

use portolan_model::{self as model, ClusterId, ClusterPolicy, ResourceRef};
use tokio::time::Instant;

use super::{Balancers, Cluster, Endpoint, NoEndpoint, Pick, PickContext};

/// An endpoint at 10.0.0.`number`.
pub(crate) fn said(number: u8) -> model::Endpoint {
    model::Endpoint::new(([10, 0, 0, number], 80).into())
}

/// What a source says of a cluster.
pub(crate) fn said_cluster(
    endpoints: impl IntoIterator<Item = model::Endpoint>,
    policy: ClusterPolicy,
) -> model::Cluster {
    model::Cluster {
        id: ClusterId::new("shop", "orders", 80),
        source: ResourceRef::new("Service", "shop", "orders"),
        endpoints: endpoints.into_iter().collect(),
        policy: Arc::new(policy),
    }
}

/// A cluster at work.
pub(crate) fn cluster(
    endpoints: impl IntoIterator<Item = model::Endpoint>,
    policy: ClusterPolicy,
) -> Arc<Cluster> {
    Arc::new(Cluster::new(&said_cluster(endpoints, policy), 1, Instant::now()))
}

/// A cluster of `count` equal endpoints.
pub(crate) fn cluster_of(count: u8, policy: ClusterPolicy) -> Arc<Cluster> {
    cluster((1..=count).map(said), policy)
}

/// Gives a cluster other endpoints.
pub(crate) fn change(cluster: &Cluster, endpoints: impl IntoIterator<Item = model::Endpoint>) {
    let state = cluster.state();
    let said = said_cluster(endpoints, (*state.policy).clone());
    let next = state.next(&said, state.generation + 1, Instant::now(), &mut Vec::new());
    cluster.replace(Arc::new(next));
}

pub(crate) fn endpoint(cluster: &Cluster, at: usize) -> Arc<Endpoint> {
    Arc::clone(&cluster.state().endpoints[at])
}

/// A pick without affinity or earlier attempts.
pub(crate) fn pick(balancers: &mut Balancers, cluster: &Arc<Cluster>) -> Result<Pick, NoEndpoint> {
    balancers.pick(cluster, &PickContext { now: Instant::now(), affinity: None, tried: &[], copyable: false })
}

/// The last part of the address of a pick, as [`said`] numbers them.
pub(crate) fn number(pick: &Pick) -> u8 {
    match pick.endpoint().address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}
