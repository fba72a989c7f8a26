//! Load and upstreams for measuring a gateway: this one, and others beside it.
//!
//! - [`load`] sends requests at a fixed rate, whether or not the answers come in time (an *open loop*), and counts the
//!   latency of each from the moment at which it was meant to be sent. A gateway that stalls for a second so shows a
//!   second in the percentiles and not one slow request. Every failure is kept, with when, how and why.
//! - [`measure`] sends as many requests as the target can answer, or so many a second, with as little work for each as
//!   there can be: it counts failures by kind and keeps no story. It is what the figures come from.
//! - [`upstream`] is the server behind the gateway: it says its own name in each answer, and can be made slow, faulty
//!   or sick while it runs.
//!
//! All run on threads of their own, so that a test which uses them keeps its runtime to itself. The binary of the same
//! name offers them on the command line, as `watch`, `run` and `backend`.
//!
//! ```
//! use std::time::Duration;
//! use portolan_loadtest::{load::{Load, Pace}, upstream::Upstream};
//!
//! # fn main() -> anyhow::Result<()> {
//! let orders = Upstream::named("orders-1").start()?;
//! let load = Load {
//!     pace: Pace::Open { rate: 200.0 },
//!     duration: Some(Duration::from_millis(200)),
//!     ..Load::to(orders.address(), "/orders/7")
//! };
//! let report = load.start()?.wait()?;
//! assert_eq!(report.failed, 0);
//! assert_eq!(report.upstreams["orders-1"], 40);
//! # Ok(())
//! # }
//! ```

pub mod amount;
mod chunked;
pub mod load;
pub mod measure;
pub mod upstream;
