//! The source, the store, and what is seen of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_discovery::kube::{
    BackoffTimings, KubernetesSettings, KubernetesSource, Namespaces, WatchMetrics, WatchTimings,
};
use portolan_discovery::translate::TranslateConfig;
use portolan_discovery::{Discovered, Source, Store};
use portolan_model::{ClusterId, Finding};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api_server::ApiServer;

/// Times short enough for tests; the longest detection is a second and a half.
pub(crate) fn timings() -> WatchTimings {
    WatchTimings {
        answer: Duration::from_millis(400),
        quiet: Duration::from_millis(300),
        watch: Duration::from_millis(1250),
        margin: Duration::from_millis(250),
        outage: Duration::from_millis(200),
        backoff: BackoffTimings {
            first: Duration::from_millis(20),
            passing: Duration::from_millis(60),
            refused: Duration::from_secs(5),
            throttled: Duration::from_secs(5),
        },
    }
}

pub(crate) struct Gateway {
    pub(crate) discovered: Discovered,
    pub(crate) translate: watch::Sender<Arc<TranslateConfig>>,
    pub(crate) registry: Registry,
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// Follows the namespace `shop`.
    pub(crate) fn on(server: &ApiServer) -> Self {
        Self::following(server, Namespaces::These(vec!["shop".into()]))
    }

    pub(crate) fn following(server: &ApiServer, namespaces: Namespaces) -> Self {
        let settings = KubernetesSettings {
            namespaces,
            timings: timings(),
            namespace_poll: Duration::from_millis(50),
            patience: Duration::from_millis(300),
        };
        let registry = Registry::new();
        let metrics = WatchMetrics::register(&registry).unwrap();
        let (translate, receiver) = watch::channel(Arc::new(TranslateConfig::kubernetes("shop")));
        let source = KubernetesSource::new(server.client(), settings, receiver, metrics);
        let mut store = Store::new();
        let (sink, discovered) = (store.sink("kubernetes", true), store.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(store.run());
        tasks.spawn(async move { source.run(sink).await.unwrap() });
        Self { discovered, translate, registry, _tasks: tasks }
    }

    /// Waits for the first full picture.
    pub(crate) async fn ready(&mut self) {
        if timeout(Duration::from_secs(10), self.discovered.ready()).await.is_err() {
            panic!("never ready: {:#?}", self.findings());
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.discovered.is_ready()
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.discovered.sources.borrow()[0].fresh
    }

    /// Waits until the source is in touch with the API server, or is not.
    pub(crate) async fn fresh(&mut self, expected: bool) {
        let wait = self.discovered.sources.wait_for(|sources| sources[0].fresh == expected);
        assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "never fresh: {expected}");
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.discovered.findings.borrow().to_vec()
    }

    /// Waits for a finding of this reason.
    pub(crate) async fn finding(&mut self, reason: &str) -> Finding {
        let wait = self.discovered.findings.wait_for(|all| all.iter().any(|it| it.reason == reason));
        let found = timeout(Duration::from_secs(10), wait).await;
        let found = found.unwrap_or_else(|_| panic!("no finding {reason}")).unwrap();
        found.iter().find(|it| it.reason == reason).unwrap().clone()
    }

    /// Waits until no finding of this reason is left.
    pub(crate) async fn no_finding(&mut self, reason: &str) {
        let wait = self.discovered.findings.wait_for(|all| all.iter().all(|it| it.reason != reason));
        if timeout(Duration::from_secs(10), wait).await.is_err() {
            panic!("still there: {:#?}", self.findings());
        }
    }

    /// The addresses behind `shop/NAME:80`, if there is such a cluster.
    pub(crate) fn addresses(&self, name: &str) -> Option<Vec<SocketAddr>> {
        addresses(&self.discovered.snapshots.borrow(), "shop", name)
    }

    /// Waits until `shop/NAME:80` has exactly these addresses.
    pub(crate) async fn serves(&mut self, name: &str, expected: &[&str]) {
        self.serves_in("shop", name, expected).await;
    }

    pub(crate) async fn serves_in(&mut self, namespace: &str, name: &str, expected: &[&str]) {
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        let wait = self
            .discovered
            .snapshots
            .wait_for(|snapshot| addresses(snapshot, namespace, name).as_ref() == Some(&expected));
        if timeout(Duration::from_secs(10), wait).await.is_err() {
            let snapshot = self.discovered.snapshots.borrow().clone();
            panic!("{namespace}/{name}: expected {expected:?}, found {:#?}", snapshot.clusters);
        }
    }

    /// Waits until there is no cluster `shop/NAME:80`.
    pub(crate) async fn serves_not(&mut self, name: &str) {
        let wait = self.discovered.snapshots.wait_for(|snapshot| addresses(snapshot, "shop", name).is_none());
        assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "{name} is still there");
    }

    /// The value of a metric, summed over all other labels.
    pub(crate) fn metric(&self, name: &str, label: (&str, &str)) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else { return 0.0 };
        let has_label = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().any(|pair| (pair.name(), pair.value()) == label)
        };
        let metrics = family.get_metric().iter().filter(has_label);
        metrics.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }
}

fn addresses(snapshot: &portolan_model::Snapshot, namespace: &str, name: &str) -> Option<Vec<SocketAddr>> {
    let cluster = snapshot.clusters.get(&ClusterId::new(namespace, name, 80))?;
    Some(cluster.endpoints.iter().map(|endpoint| endpoint.key.address).collect())
}
