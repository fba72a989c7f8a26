//! Metrics of the table: rare enough for plain Prometheus types.

use prometheus::{Histogram, HistogramOpts, IntGauge, Registry};

use crate::table::Publication;

/// What is told of each swap of the table.
#[derive(Debug, Clone)]
pub(crate) struct TableMetrics {
    generation: IntGauge,
    swap: Histogram,
    convergence: Histogram,
}

impl TableMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// If one is registered already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = vec![0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
        let generation =
            IntGauge::new("portolan_table_generation", "Generation of the routing table in use.")?;
        let swap = Histogram::with_opts(
            HistogramOpts::new(
                "portolan_table_swap_seconds",
                "From taking a snapshot to its table being in use.",
            )
            .buckets(buckets.clone()),
        )?;
        let convergence = Histogram::with_opts(
            HistogramOpts::new(
                "portolan_convergence_seconds",
                "From the oldest change in a snapshot being received to every worker being able to use its table.",
            )
            .buckets(buckets),
        )?;
        registry.register(Box::new(generation.clone()))?;
        registry.register(Box::new(swap.clone()))?;
        registry.register(Box::new(convergence.clone()))?;
        Ok(Self { generation, swap, convergence })
    }

    /// To be told of each swap.
    pub(crate) fn observer(&self) -> impl FnMut(&Publication) + Send + 'static {
        let Self { generation, swap, .. } = self.clone();
        move |publication| {
            generation.set(i64::try_from(publication.generation).unwrap_or(i64::MAX));
            swap.observe(publication.swap.as_secs_f64());
        }
    }

    /// To be told how long each table took to reach every worker.
    pub(crate) fn convergence(&self) -> Histogram {
        self.convergence.clone()
    }
}
