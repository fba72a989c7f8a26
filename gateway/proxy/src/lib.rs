//! The data path of Portolan: listeners, routing table, balancing, health, upstream connections.
//!
//! It knows the neutral model ([`portolan_model`]) and nothing of where that comes from. A [`Proxy`] takes snapshots,
//! compiles each into an immutable table, and serves traffic on it:
//!
//! ```text
//! snapshots ─► table::Publisher ─(one atomic swap)─► worker 0 … worker N-1   (a thread and a runtime each)
//!                                                      │ listener: accept, connection
//!                                                      │ http:     proxy = normalise → match → filter → send → relay
//!                                                      │ cluster:  Balancers → Pick
//!                                                      └ upstream: pool → connect → attempt → retry
//! ```
//!
//! Start reading at `http/proxy.rs`, which is what happens to one request.

mod clock;
pub mod cluster;
mod config;
mod drain;
mod error;
mod filters;
mod flushes;
#[cfg(test)]
mod future_size;
pub mod health;
mod http;
mod http1;
mod http2;
mod listener;
mod progress;
mod proxy;
pub mod table;
mod telemetry;
mod tls;
mod upstream;
mod worker;

pub use config::{AccessLog, LiveConfig, ProxyConfig};
pub use drain::DrainReport;
pub use error::{Failure, Reason};
pub use listener::{ListenerState, ListenerStatus, probe};
pub use proxy::{Proxy, ProxyView};
pub use telemetry::AccessLogOutput;
pub use tls::{Certificate, CertificateError, ServedCertificate};
