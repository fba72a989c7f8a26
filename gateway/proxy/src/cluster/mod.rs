//! Clusters at work: sets of endpoints, their load and health, and the choice of one of them for each request.
//!
//! ```text
//! Clusters (publisher's) ── Cluster ── ClusterState (one swap: policy, endpoints, standings)
//!                                        └─ Endpoint (padded atomics: load, failures, ejection, active checks)
//! Balancers (one per worker) ── per cluster: usable set, schedule, cursor, retry budget ──► Pick
//! ```
//!
//! What is shared between workers stands in [`Cluster`] and [`Endpoint`] and is atomic; what a worker decides with
//! stands in its own [`Balancers`] and needs no lock. A balancer looks at the shared state only when the cluster's
//! epoch has moved: the epoch moves with each new [`ClusterState`] and with each change of any endpoint's health.

mod balance;
mod budget;
#[allow(clippy::module_inception, reason = "the file is named for the type in it, as every file here")]
mod cluster;
mod clusters;
mod endpoint;
mod pick;
#[cfg(test)]
pub(crate) mod testing;

pub use balance::Balancers;
pub use cluster::{Cluster, ClusterState};
pub use clusters::{Clusters, Departed};
pub use endpoint::{Endpoint, Health};
pub use pick::{AffinityKey, NoEndpoint, Outcome, Pick, PickContext};

pub(crate) use balance::verdicts;
pub(crate) use pick::{Held, Trial};
