//! What is counted of the file.

use jiff::Timestamp;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// The metrics of the file.
#[derive(Debug, Clone)]
pub struct FileMetrics {
    pub(super) at: Gauge,
    pub(super) bytes: IntGauge,
    pub(super) writes: IntCounter,
    pub(super) failures: IntCounter,
}

impl FileMetrics {
    /// Shows the metrics in `registry`.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            at: Gauge::new(
                "portolan_snapshot_file_timestamp_seconds",
                "The time in the snapshot file, in seconds since the epoch: when its picture was last known to be \
                 right. 0 while there is no file.",
            )?,
            bytes: IntGauge::new("portolan_snapshot_file_bytes", "The size of the snapshot file.")?,
            writes: IntCounter::new(
                "portolan_snapshot_file_writes_total",
                "Times that the snapshot file was written.",
            )?,
            failures: IntCounter::new(
                "portolan_snapshot_file_write_failures_total",
                "Times that the snapshot file could not be written.",
            )?,
        };
        registry.register(Box::new(metrics.at.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.writes.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        Ok(metrics)
    }

    /// The file has this time.
    pub(super) fn show(&self, at: Timestamp) {
        self.at.set(at.as_millisecond() as f64 / 1000.0);
    }
}
