//! Metrics of the data path: a shard for each worker, written by that worker alone, summed when scraped.
//!
//! A counter shared by all workers would be one cache line that every core fights for on every request. Here a count
//! is a relaxed load and a relaxed store in memory that no other core writes. The maps of series are behind a lock
//! that is taken only when a route is used for the first time, and by the scrape.
//!
//! Labels are route, cluster, reason, status class and listener: never a path, a host from the wire or a pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use portolan_model::{ClusterId, ListenerId, RouteId};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use tokio::time::Instant;

use crate::error::Reason;
use crate::table::RoutingTable;
use crate::tls::HandshakeFailure;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

/// One worker's share of all metrics. Like everything here that a worker writes on its own, it begins and ends with a
/// block of 128 bytes, two cache lines, which processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    failures: [Count; Reason::ALL.len()],
    unrouted: [Count; CLASSES.len()],
    pub(crate) retries: Count,
    pub(crate) retries_denied: Count,
    pub(crate) upstream_opened: Count,
    pub(crate) upstream_reused: Count,
    pub(crate) upstream_closed: Count,
    /// Of the route's or the gateway's own answers, by route and cluster.
    series: Mutex<HashMap<(RouteId, ClusterId), Arc<SeriesCounts>, RandomState>>,
    latencies: Mutex<HashMap<ClusterId, Arc<Latency>, RandomState>>,
    listeners: Mutex<HashMap<ListenerId, Arc<ListenerSeries>, RandomState>>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct SeriesCounts {
    classes: [Count; CLASSES.len()],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Latency {
    buckets: [Count; BUCKETS.len() + 1],
    sum_nanos: Count,
}

/// What a worker counts for one route and cluster, found once and kept.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) route: RouteId,
    pub(crate) cluster: ClusterId,
    counts: Arc<SeriesCounts>,
    latency: Arc<Latency>,
}

/// What a worker counts for one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ListenerSeries {
    pub(crate) accepted: Count,
    pub(crate) closed: Count,
    pub(crate) refused: Count,
    pub(crate) accept_errors: Count,
    handshake_failures: [Count; HandshakeFailure::ALL.len()],
}

/// The whole, as Prometheus sees it.
pub(crate) struct Metrics {
    shards: Vec<Arc<Shard>>,
    log_dropped: Arc<AtomicU64>,
    table: Arc<ArcSwap<RoutingTable>>,
    desc: Vec<Desc>,
}

// === impl Count ===

impl Count {
    /// Adds one. Only the thread that owns the shard may.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Adds `more`. Only the thread that owns the shard may.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// What has been counted.
    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Shard ===

impl Shard {
    /// Counts a failure of ours.
    pub(crate) fn failed(&self, reason: Reason) {
        self.failures[reason as usize].one();
    }

    /// Counts an answer to a request that no route took.
    pub(crate) fn unrouted(&self, status: u16) {
        self.unrouted[class(status)].one();
    }

    /// The series of a route and cluster; the caller keeps it. Its names are copies: the access log counts who holds
    /// them, and the table's own are shared with the other workers.
    pub(crate) fn series(&self, route: &RouteId, cluster: &ClusterId) -> Series {
        let counts = Arc::clone(locked(&self.series).entry((route.clone(), cluster.clone())).or_default());
        let latency = Arc::clone(locked(&self.latencies).entry(cluster.clone()).or_default());
        let (route, cluster) = (RouteId::new(route.as_str()), ClusterId::from_text(cluster.as_str()));
        Series { route, cluster, counts, latency }
    }

    /// Keeps the series of these clusters only.
    pub(crate) fn retain(&self, lives: impl Fn(&ClusterId) -> bool) {
        locked(&self.series).retain(|(_, cluster), _| lives(cluster));
        locked(&self.latencies).retain(|cluster, _| lives(cluster));
    }

    /// The series of a listener; the caller keeps it.
    pub(crate) fn listener(&self, id: &ListenerId) -> Arc<ListenerSeries> {
        Arc::clone(locked(&self.listeners).entry(id.clone()).or_default())
    }
}

// === impl ListenerSeries ===

impl ListenerSeries {
    /// Counts a handshake that came to nothing.
    pub(crate) fn handshake_failed(&self, failure: HandshakeFailure) {
        self.handshake_failures[failure as usize].one();
    }
}

// === impl Series ===

impl Series {
    /// Counts a finished request.
    pub(crate) fn observe(&self, status: u16, duration: Duration) {
        self.counts.classes[class(status)].one();
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.latency.buckets[bucket].one();
        self.latency.sum_nanos.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

// === impl Metrics ===

impl Metrics {
    /// Sums over these shards at each scrape.
    ///
    /// # Errors
    /// If a metric's description is not valid, which is an error in this file.
    pub(crate) fn new(
        shards: Vec<Arc<Shard>>,
        log_dropped: Arc<AtomicU64>,
        table: Arc<ArcSwap<RoutingTable>>,
    ) -> prometheus::Result<Self> {
        let desc = FAMILIES
            .iter()
            .map(|(name, help, labels, _)| {
                let labels = labels.iter().map(ToString::to_string).collect();
                Desc::new((*name).into(), (*help).into(), labels, HashMap::new())
            })
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { shards, log_dropped, table, desc })
    }

    fn sum(&self, of: impl Fn(&Shard) -> u64) -> f64 {
        as_float(self.shards.iter().map(|shard| of(shard)).sum())
    }

    fn requests(&self) -> Vec<Metric> {
        let mut sums: BTreeMap<(RouteId, ClusterId), [u64; CLASSES.len()]> = BTreeMap::new();
        let mut unrouted = [0; CLASSES.len()];
        for shard in &self.shards {
            add(&mut unrouted, &shard.unrouted);
            #[expect(clippy::iter_over_hash_type, reason = "the sums go into an ordered map")]
            for (key, counts) in locked(&shard.series).iter() {
                add(sums.entry(key.clone()).or_default(), &counts.classes);
            }
        }
        let routed = sums
            .iter()
            .flat_map(|((route, cluster), classes)| by_class(route.as_str(), cluster.as_str(), classes));
        by_class("", "", &unrouted).into_iter().chain(routed).collect()
    }

    fn durations(&self) -> Vec<Metric> {
        let mut sums: BTreeMap<ClusterId, ([u64; BUCKETS.len() + 1], u64)> = BTreeMap::new();
        for shard in &self.shards {
            #[expect(clippy::iter_over_hash_type, reason = "the sums go into an ordered map")]
            for (cluster, latency) in locked(&shard.latencies).iter() {
                let (buckets, nanos) = sums.entry(cluster.clone()).or_default();
                add(buckets, &latency.buckets);
                *nanos = nanos.wrapping_add(latency.sum_nanos.total());
            }
        }
        sums.iter()
            .map(|(cluster, (buckets, nanos))| {
                let mut metric = Metric::from_label(labels(&[("cluster", cluster.as_str())]));
                metric.set_histogram(histogram(buckets, *nanos));
                metric
            })
            .collect()
    }

    fn failures(&self) -> Vec<Metric> {
        Reason::ALL
            .iter()
            .map(|reason| {
                let total = self.sum(|shard| shard.failures[*reason as usize].total());
                counter(&[("reason", reason.as_str())], total)
            })
            .collect()
    }

    fn listeners(&self, of: impl Fn(&ListenerSeries) -> u64, gauge_like: bool) -> Vec<Metric> {
        let mut sums: BTreeMap<ListenerId, u64> = BTreeMap::new();
        for shard in &self.shards {
            #[expect(clippy::iter_over_hash_type, reason = "the sums go into an ordered map")]
            for (id, series) in locked(&shard.listeners).iter() {
                *sums.entry(id.clone()).or_default() += of(series);
            }
        }
        let metric = if gauge_like { gauge } else { counter };
        sums.iter().map(|(id, total)| metric(&[("listener", id.as_str())], as_float(*total))).collect()
    }

    /// By listener and reason; what has not happened is not listed, as most listeners are without TLS.
    fn handshake_failures(&self) -> Vec<Metric> {
        let mut sums: BTreeMap<(ListenerId, &str), u64> = BTreeMap::new();
        for shard in &self.shards {
            #[expect(clippy::iter_over_hash_type, reason = "the sums go into an ordered map")]
            for (id, series) in locked(&shard.listeners).iter() {
                for (failure, count) in HandshakeFailure::ALL.iter().zip(&series.handshake_failures) {
                    *sums.entry((id.clone(), failure.as_str())).or_default() += count.total();
                }
            }
        }
        sums.iter()
            .filter(|(_, total)| **total > 0)
            .map(|((id, reason), total)| {
                counter(&[("listener", id.as_str()), ("reason", reason)], as_float(*total))
            })
            .collect()
    }

    fn metrics_of(&self, name: &str) -> Vec<Metric> {
        match name {
            "portolan_requests_total" => self.requests(),
            "portolan_request_duration_seconds" => self.durations(),
            "portolan_failures_total" => self.failures(),
            "portolan_retries_total" => vec![counter(&[], self.sum(|shard| shard.retries.total()))],
            "portolan_retries_denied_total" => {
                vec![counter(&[], self.sum(|shard| shard.retries_denied.total()))]
            }
            "portolan_upstream_connections_total" => {
                vec![counter(&[], self.sum(|shard| shard.upstream_opened.total()))]
            }
            "portolan_upstream_connections_reused_total" => {
                vec![counter(&[], self.sum(|shard| shard.upstream_reused.total()))]
            }
            "portolan_upstream_connections" => {
                let open = |shard: &Shard| {
                    shard.upstream_opened.total().saturating_sub(shard.upstream_closed.total())
                };
                vec![gauge(&[], self.sum(open))]
            }
            "portolan_connections" => {
                self.listeners(|series| series.accepted.total().saturating_sub(series.closed.total()), true)
            }
            "portolan_connections_total" => self.listeners(|series| series.accepted.total(), false),
            "portolan_connections_refused_total" => self.listeners(|series| series.refused.total(), false),
            "portolan_accept_errors_total" => self.listeners(|series| series.accept_errors.total(), false),
            "portolan_tls_handshakes_failed_total" => self.handshake_failures(),
            "portolan_access_log_dropped_total" => {
                vec![counter(&[], as_float(self.log_dropped.load(Ordering::Relaxed)))]
            }
            "portolan_endpoints" => self.endpoints(),
            "portolan_ejections_total" => self.ejections(),
            _ => Vec::new(),
        }
    }

    fn ejections(&self) -> Vec<Metric> {
        let table = self.table.load_full();
        let clusters = table.clusters().iter().filter(|cluster| cluster.ejections() > 0);
        clusters
            .map(|cluster| counter(&[("cluster", cluster.id().as_str())], as_float(cluster.ejections())))
            .collect()
    }

    fn endpoints(&self) -> Vec<Metric> {
        let census = self.table.load_full().census(Instant::now());
        [
            ("ready", census.ready),
            ("ejected", census.ejected),
            ("failed", census.failed),
            ("draining", census.draining),
            ("not-ready", census.not_ready),
        ]
        .map(|(state, count)| gauge(&[("state", state)], as_float(count)))
        .into()
    }
}

/// Name, help, labels, type.
const FAMILIES: [(&str, &str, &[&str], MetricType); 16] = [
    (
        "portolan_requests_total",
        "Finished requests; without a route where none took them. Class none: the client left before an answer.",
        &["route", "cluster", "status_class"],
        MetricType::COUNTER,
    ),
    (
        "portolan_request_duration_seconds",
        "From the head of the request to the last byte of the answer.",
        &["cluster"],
        MetricType::HISTOGRAM,
    ),
    ("portolan_failures_total", "Requests that failed here, by reason.", &["reason"], MetricType::COUNTER),
    ("portolan_retries_total", "Attempts beyond the first.", &[], MetricType::COUNTER),
    ("portolan_retries_denied_total", "Retries that the budget did not allow.", &[], MetricType::COUNTER),
    ("portolan_upstream_connections_total", "Connections opened to endpoints.", &[], MetricType::COUNTER),
    (
        "portolan_upstream_connections_reused_total",
        "Attempts made on a connection that was already open.",
        &[],
        MetricType::COUNTER,
    ),
    ("portolan_upstream_connections", "Connections open to endpoints.", &[], MetricType::GAUGE),
    ("portolan_connections", "Connections open from clients.", &["listener"], MetricType::GAUGE),
    ("portolan_connections_total", "Connections accepted.", &["listener"], MetricType::COUNTER),
    (
        "portolan_connections_refused_total",
        "Connections closed at once because there were too many.",
        &["listener"],
        MetricType::COUNTER,
    ),
    (
        "portolan_accept_errors_total",
        "Failed attempts to accept a connection (no file descriptors left, for example).",
        &["listener"],
        MetricType::COUNTER,
    ),
    (
        "portolan_tls_handshakes_failed_total",
        "TLS handshakes that came to nothing, by reason; reasons that have not occurred are not listed.",
        &["listener", "reason"],
        MetricType::COUNTER,
    ),
    (
        "portolan_access_log_dropped_total",
        "Lines of the access log that were dropped because its reader is slow.",
        &[],
        MetricType::COUNTER,
    ),
    ("portolan_endpoints", "Endpoints in the table, by state.", &["state"], MetricType::GAUGE),
    (
        "portolan_ejections_total",
        "Endpoints left out because their answers failed; clusters without any are not listed.",
        &["cluster"],
        MetricType::COUNTER,
    ),
];

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        FAMILIES
            .iter()
            .filter_map(|(name, help, _, kind)| {
                let metrics = self.metrics_of(name);
                if metrics.is_empty() {
                    return None;
                }
                let mut family = MetricFamily::default();
                family.set_name((*name).into());
                family.set_help((*help).into());
                family.set_field_type(*kind);
                family.set_metric(metrics);
                Some(family)
            })
            .collect()
    }
}

fn class(status: u16) -> usize {
    usize::from(status / 100).min(CLASSES.len() - 1)
}

fn add<const N: usize>(sums: &mut [u64; N], counts: &[Count; N]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum = sum.wrapping_add(count.total());
    }
}

fn by_class(route: &str, cluster: &str, totals: &[u64; CLASSES.len()]) -> Vec<Metric> {
    let seen = CLASSES.iter().zip(totals).filter(|(_, total)| **total > 0);
    seen.map(|(class, total)| {
        counter(&[("route", route), ("cluster", cluster), ("status_class", class)], as_float(*total))
    })
    .collect()
}

fn histogram(buckets: &[u64; BUCKETS.len() + 1], nanos: u64) -> Histogram {
    let mut histogram = Histogram::default();
    let mut cumulative = 0;
    let mut filled = Vec::with_capacity(BUCKETS.len());
    for (bound, count) in BUCKETS.iter().zip(buckets) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        filled.push(bucket);
    }
    histogram.set_sample_count(cumulative + buckets[BUCKETS.len()]);
    histogram.set_sample_sum(as_float(nanos) / 1e9);
    histogram.set_bucket(filled);
    histogram
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value((*value).into());
            pair
        })
        .collect()
}

fn counter(pairs: &[(&str, &str)], total: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(total);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floating point numbers")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// The maps stay whole whatever panics, because nothing is done under the lock that could.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_worker_writes_shares_no_cache_line_with_anything() {
        let alignments = [
            align_of::<Shard>(),
            align_of::<SeriesCounts>(),
            align_of::<Latency>(),
            align_of::<ListenerSeries>(),
        ];
        assert_eq!(alignments, [128; 4], "two lines are fetched together");
    }
}
