//! What the data path tells of itself.

mod access_log;
mod metrics;
mod record;
mod table;

pub use access_log::AccessLogOutput;
pub(crate) use access_log::AccessLogger;
pub(crate) use metrics::{ListenerSeries, Metrics, Series, Shard};
pub(crate) use record::Record;
pub(crate) use table::TableMetrics;
