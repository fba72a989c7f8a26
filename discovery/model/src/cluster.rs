//! Sets of endpoints that answer for a service.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, ClusterPolicy, ResourceRef};

/// The endpoints behind one port of one service, and how to treat them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name, in routes, metrics and the admin pages.
    pub id: ClusterId,
    /// The object that it stands for.
    pub source: ResourceRef,
    /// Every known endpoint, each key once, sorted by key. Shared: an unchanged set keeps its allocation.
    pub endpoints: Arc<[Endpoint]>,
    /// How requests are spread, retried, timed and checked.
    pub policy: Arc<ClusterPolicy>,
}

/// One process that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What makes it this endpoint and no other.
    pub key: EndpointKey,
    /// Whether it should get requests.
    pub readiness: Readiness,
    /// Its share, relative to the others; 0 takes no new requests.
    pub weight: u16,
    /// 0 is preferred; higher values are used only when no usable endpoint has a lower one (zone hints).
    pub priority: u8,
}

/// The identity of an endpoint: load, health and connections survive a change of anything else. A pod that got the
/// address of another has another `uid`, and so is another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointKey {
    /// Where to connect.
    pub address: SocketAddr,
    /// The identity of what stands behind the address (a pod's uid), where the source knows it.
    pub uid: Option<Arc<str>>,
}

/// Whether an endpoint should get requests, as its source says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It should.
    Ready,
    /// It is on its way out but still answers: only when nothing is ready (KEP-1669).
    Draining,
    /// It should not.
    NotReady,
}

impl Endpoint {
    /// A ready endpoint at `address` with weight 1, preferred, of unknown identity.
    pub fn new(address: SocketAddr) -> Self {
        Self { key: EndpointKey { address, uid: None }, readiness: Readiness::Ready, weight: 1, priority: 0 }
    }
}
