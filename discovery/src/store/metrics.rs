//! What the store counts.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::SourceStatus;

#[derive(Debug)]
pub(super) struct Metrics {
    published: IntCounter,
    generation: IntGauge,
    pub(super) objects: IntGauge,
    synced: IntGaugeVec,
    fresh: IntGaugeVec,
    pub(super) restored: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is a sound metric name");
        let gauges = |name, help, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("the name is a sound metric name")
        };
        Self {
            published: IntCounter::new(
                "portolan_snapshots_published_total",
                "Snapshots published by the store.",
            )
            .expect("the name is a sound metric name"),
            generation: gauge("portolan_snapshot_generation", "Generation of the last snapshot published."),
            objects: gauge(
                "portolan_discovery_objects",
                "Objects that contribute to the snapshot or to the findings.",
            ),
            synced: gauges(
                "portolan_source_synced",
                "1 once the source's first full picture is published.",
                &["source"],
            ),
            fresh: gauges(
                "portolan_source_fresh",
                "1 while the source is in touch with its origin; content stays as it was while it is not.",
                &["source"],
            ),
            restored: gauge(
                "portolan_snapshot_restored",
                "1 while requests are served from the snapshot file, because a source has not answered since the start.",
            ),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.published.clone()))?;
        registry.register(Box::new(self.generation.clone()))?;
        registry.register(Box::new(self.objects.clone()))?;
        registry.register(Box::new(self.synced.clone()))?;
        registry.register(Box::new(self.restored.clone()))?;
        registry.register(Box::new(self.fresh.clone()))
    }

    pub(super) fn published(&self, generation: u64) {
        self.published.inc();
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    pub(super) fn show_sources(&self, sources: &[SourceStatus]) {
        for source in sources {
            self.synced.with_label_values(&[source.name]).set(source.synced.into());
            self.fresh.with_label_values(&[source.name]).set(source.fresh.into());
        }
    }
}
