//! The metric of findings: how many stand now, whoever reported them.

use std::collections::BTreeMap;
use std::sync::Weak;

use portolan_model::Severity;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use super::View;

/// Counts the findings at each scrape, so that a reason that is gone is not shown as before.
pub(crate) struct FindingGauge {
    /// The view holds the registry, which holds this.
    view: Weak<View>,
    shape: IntGaugeVec,
}

impl FindingGauge {
    /// The metric of this view's findings.
    pub(crate) fn new(view: Weak<View>) -> Self {
        Self { view, shape: shape() }
    }
}

fn shape() -> IntGaugeVec {
    let options =
        Opts::new("portolan_findings", "Things that could not be honoured as they stand now, by reason.");
    IntGaugeVec::new(options, &["reason", "severity"]).expect("the name and labels are sound")
}

impl Collector for FindingGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.shape.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut counts = BTreeMap::<_, i64>::new();
        for finding in self.view.upgrade().into_iter().flat_map(|view| view.findings()) {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            *counts.entry((finding.reason, severity)).or_default() += 1;
        }
        let gauges = shape();
        for ((reason, severity), count) in counts {
            gauges.with_label_values(&[&*reason, severity]).set(count);
        }
        gauges.collect()
    }
}
