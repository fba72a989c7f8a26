//! The neutral model: what Portolan means by a listener, a route, a cluster and a policy.
//!
//! Every source of configuration (Kubernetes, files; later Gateway API, Spring Cloud Gateway, Eureka) translates its
//! own words into these types, and the data path is built from these types alone. So the middle knows neither end:
//! this crate has no runtime, no HTTP implementation and no Kubernetes client in it.
//!
//! The types form one tree. A [`Snapshot`] is a consistent picture of everything:
//!
//! ```text
//! Snapshot ── listeners: Listener (where to accept, in which role)
//!          ├─ routes:    Route ── rules: Rule ── matches, filters, backends ──► ClusterId
//!          └─ clusters:  Cluster ── policy: ClusterPolicy
//!                                └─ endpoints: Endpoint (address, readiness, weight, priority)
//! ```
//!
//! A source speaks in [`Contribution`]s, one for each object that it read, and reports what it could not honour as
//! [`Finding`]s on that same object.
//!
//! ```
//! use portolan_model::{Cluster, ClusterId, ClusterPolicy, Contribution, Endpoint, ResourceRef};
//!
//! let service = ResourceRef::new("Service", "shop", "orders");
//! let mut said = Contribution::default();
//! said.clusters.push(std::sync::Arc::new(Cluster {
//!     id: ClusterId::new("shop", "orders", 80),
//!     source: service,
//!     endpoints: vec![Endpoint::new("10.1.0.7:8080".parse().unwrap())].into(),
//!     policy: ClusterPolicy::default().into(),
//! }));
//! assert_eq!(said.clusters[0].id.as_str(), "shop/orders:80");
//! ```

mod cluster;
mod contribution;
mod filter;
mod finding;
mod listener;
mod names;
mod policy;
mod route;
mod snapshot;

pub use cluster::{Cluster, Endpoint, EndpointKey, Readiness};
pub use contribution::Contribution;
pub use filter::Filter;
pub use finding::{Finding, Severity};
pub use listener::{Listener, Protocol, Role, Roles};
pub use names::{ClusterId, Hostname, InvalidHostname, ListenerId, ResourceRef, RouteId};
pub use policy::{
    Affinity, Balancing, ClusterPolicy, HealthCheck, OutlierDetection, Probe, RetryPolicy, Timeouts,
};
pub use route::{
    BackendRef, HostMatch, Match, NameValueMatch, PathMatch, PortMatch, Rank, Route, Rule, ValueMatch,
};
pub use snapshot::Snapshot;
