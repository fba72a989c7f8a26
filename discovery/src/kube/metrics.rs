//! What is counted of the watches.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::request::Failure;

/// The metric families of all watches; clones count into the same.
#[derive(Debug, Clone)]
pub struct WatchMetrics {
    events: IntCounterVec,
    relists: IntCounterVec,
    restarts: IntCounterVec,
    malformed: IntCounterVec,
    open: IntGaugeVec,
    denied: IntGaugeVec,
    last_heard: GaugeVec,
}

impl WatchMetrics {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let gauge = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(name, help), &["kind"])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let last_heard = GaugeVec::new(
            Opts::new(
                "portolan_watch_last_event_timestamp_seconds",
                "When anything (bookmarks too) was last heard of the kind, in seconds since the epoch",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(last_heard.clone()))?;
        Ok(Self {
            events: counter("portolan_watch_events_total", "Events heard on watches", &["kind", "event"])?,
            relists: counter("portolan_watch_relists_total", "Complete pictures taken", &["kind", "how"])?,
            restarts: counter(
                "portolan_watch_restarts_total",
                "Watches that failed, by why",
                &["kind", "why"],
            )?,
            malformed: counter(
                "portolan_watch_malformed_total",
                "Objects that could not be read",
                &["kind"],
            )?,
            open: gauge("portolan_watch_open", "Watches that are open")?,
            denied: gauge("portolan_watch_denied", "Watches that the API server denies")?,
            last_heard,
        })
    }

    /// The counters of one watch of this kind.
    pub(crate) fn of(&self, kind: &str) -> KindMetrics {
        // So that the families are there before anything happens.
        self.malformed.with_label_values(&[kind]);
        self.open.with_label_values(&[kind]);
        self.denied.with_label_values(&[kind]);
        KindMetrics { families: self.clone(), kind: kind.to_owned(), is_open: false, is_denied: false }
    }
}

/// The counters of one watch; dropping it takes its share out of the gauges.
#[derive(Debug)]
pub(crate) struct KindMetrics {
    families: WatchMetrics,
    kind: String,
    is_open: bool,
    is_denied: bool,
}

impl KindMetrics {
    pub(crate) fn heard(&self, event: &str) {
        self.families.events.with_label_values(&[self.kind.as_str(), event]).inc();
        self.heard_now();
    }

    pub(crate) fn listed(&self, how: &str, malformed: usize) {
        self.families.relists.with_label_values(&[self.kind.as_str(), how]).inc();
        self.malformed(malformed);
        self.heard_now();
    }

    pub(crate) fn malformed(&self, count: usize) {
        self.families.malformed.with_label_values(&[self.kind.as_str()]).inc_by(count as u64);
    }

    pub(crate) fn listening(&mut self) {
        self.set(true, false);
    }

    pub(crate) fn lost(&mut self, failure: &Failure) {
        self.families.restarts.with_label_values(&[self.kind.as_str(), failure.label()]).inc();
        self.set(false, failure.is_denied());
    }

    fn heard_now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.families.last_heard.with_label_values(&[self.kind.as_str()]).set(now.as_secs_f64());
    }

    fn set(&mut self, open: bool, denied: bool) {
        let kind = [self.kind.as_str()];
        self.families.open.with_label_values(&kind).add(i64::from(open) - i64::from(self.is_open));
        self.families.denied.with_label_values(&kind).add(i64::from(denied) - i64::from(self.is_denied));
        (self.is_open, self.is_denied) = (open, denied);
    }
}

impl Drop for KindMetrics {
    fn drop(&mut self) {
        self.set(false, false);
    }
}
