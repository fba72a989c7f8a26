//! Where requests come in.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ListenerId;

/// A socket address to accept on, and what may be asked there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its name, in metrics and findings.
    pub id: ListenerId,
    /// The address and port to bind; every worker opens a socket of its own on it.
    pub bind: SocketAddr,
    /// Who calls here, and so which routes and which forms of request target are open.
    pub role: Role,
    /// What is spoken here.
    pub protocol: Protocol,
}

/// Who calls at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Callers from outside: path and host routes, origin-form targets only.
    Edge,
    /// Callers inside the Kubernetes cluster: besides, a service's own names as the authority, in origin and in
    /// absolute form.
    Cluster,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 with prior knowledge, in the clear.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS, as the client and the gateway agree by ALPN.
    Https,
}

impl Protocol {
    /// The scheme of the URLs that lead here.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The listener roles on which a route is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roles {
    /// Reachable at edge listeners.
    pub edge: bool,
    /// Reachable at cluster listeners.
    pub cluster: bool,
}

impl Roles {
    /// Reachable everywhere.
    pub const ALL: Self = Self { edge: true, cluster: true };
    /// Reachable for callers from outside only.
    pub const EDGE: Self = Self { edge: true, cluster: false };
    /// Reachable for callers inside the Kubernetes cluster only.
    pub const CLUSTER: Self = Self { edge: false, cluster: true };

    /// Whether a listener of this role serves the route.
    pub fn contains(self, role: Role) -> bool {
        match role {
            Role::Edge => self.edge,
            Role::Cluster => self.cluster,
        }
    }
}
