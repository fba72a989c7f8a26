//! Settings in the words of the crates that they are for.

use std::sync::Arc;

use portolan_discovery::translate::{self, TranslateConfig};
use portolan_model::{
    ClusterPolicy, Listener, ListenerId, OutlierDetection, Protocol, RetryPolicy, Role, Timeouts,
};
use portolan_proxy::{AccessLog, LiveConfig, ProxyConfig};

use crate::open_files;
use crate::settings::{self, Expose, Name, Settings, Workers};

/// The share of requests that a sampled access log shows besides the failed ones.
const SAMPLED: f64 = 0.01;

impl Settings {
    /// The namespace whose Services need no namespace in their routes, given the one that counts as our own.
    pub(crate) fn default_namespace(&self, own: &str) -> String {
        self.default_namespace.as_ref().map_or_else(|| own.to_owned(), |Name(name)| name.clone())
    }

    /// The node that we run on, by setting or by the downward API's usual variable.
    pub(crate) fn node_name(&self) -> Option<String> {
        self.node_name.as_ref().map(|Name(name)| name.clone()).or_else(|| crate::variable("NODE_NAME"))
    }

    fn worker_threads(&self) -> usize {
        match self.workers {
            Workers::Auto => num_cpus::get(),
            Workers::Count(count) => count,
        }
    }
}

/// How manifests in files are translated.
pub(crate) fn for_files(settings: &Settings, namespace: &str) -> TranslateConfig {
    with_settings(TranslateConfig::files(namespace), settings)
}

/// How objects of a Kubernetes cluster are translated.
pub(crate) fn for_kubernetes(settings: &Settings, namespace: &str, zone: Option<&str>) -> TranslateConfig {
    let zone = zone.map(Into::into);
    TranslateConfig { zone, ..with_settings(TranslateConfig::kubernetes(namespace), settings) }
}

fn with_settings(config: TranslateConfig, settings: &Settings) -> TranslateConfig {
    TranslateConfig {
        expose: match settings.expose {
            Expose::Annotated => translate::Expose::Annotated,
            Expose::All => translate::Expose::All,
        },
        cluster_domain: settings.cluster_domain.as_str().into(),
        zone: settings.zone.as_deref().map(Into::into),
        node: settings.node_name().map(Into::into),
        zone_hints: settings.zone_hints,
        policy: Arc::new(policy(settings)),
        ..config
    }
}

fn policy(settings: &Settings) -> ClusterPolicy {
    ClusterPolicy {
        balancing: settings.balance,
        outlier_detection: OutlierDetection {
            consecutive_failures: settings.outlier_failures,
            base_ejection: settings.outlier_ejection,
            ..OutlierDetection::default()
        },
        retry: RetryPolicy {
            max_retries: settings.retries,
            budget_percent: settings.retry_budget.0,
            ..RetryPolicy::default()
        },
        timeouts: Timeouts {
            connect: settings.connect_timeout,
            response_header: settings.response_timeout,
            stream_idle: settings.stream_idle_timeout,
            request: settings.request_timeout,
        },
        ..ClusterPolicy::default()
    }
}

/// What is fixed of the data path when it starts.
pub(crate) fn proxy_config(settings: &Settings) -> ProxyConfig {
    let Name(via) = &settings.via_name;
    ProxyConfig {
        workers: settings.worker_threads(),
        pseudonym: format!("{via}-{:08x}", fastrand::u32(..)),
        max_connections: open_files::client_connections(settings.max_connections as usize),
        max_head_bytes: settings.max_head_bytes as usize,
        ..ProxyConfig::default()
    }
}

/// What may change of the data path while it runs.
pub(crate) fn live_config(settings: &Settings) -> LiveConfig {
    LiveConfig {
        trusted_proxies: settings.trusted_proxies.clone(),
        access_log: match settings.access_log {
            settings::AccessLog::Off => AccessLog::Off,
            settings::AccessLog::Errors => AccessLog::Errors,
            settings::AccessLog::Sampled => AccessLog::Sampled(SAMPLED),
            settings::AccessLog::All => AccessLog::All,
        },
        via: settings.via,
        max_header_fields: settings.max_headers as usize,
        max_body_bytes: settings.max_body_bytes,
        request_head_timeout: settings.request_head_timeout,
        client_idle_timeout: settings.client_idle_timeout,
        upstream_idle_timeout: settings.upstream_idle_timeout,
    }
}

/// The listeners that the settings open.
pub(crate) fn listeners(settings: &Settings) -> Vec<Arc<Listener>> {
    let listener = |(bind, role, protocol, word): (std::net::SocketAddr, Role, Protocol, &str)| {
        Arc::new(Listener { id: ListenerId::new(format!("{word}/{bind}")), bind, role, protocol })
    };
    let edge = settings.listen.iter().map(|&bind| (bind, Role::Edge, Protocol::Http, "edge"));
    let tls = settings.listen_tls.iter().map(|&bind| (bind, Role::Edge, Protocol::Https, "edge-tls"));
    let cluster =
        settings.listen_cluster.iter().map(|&bind| (bind, Role::Cluster, Protocol::Http, "cluster"));
    edge.chain(cluster).chain(tls).map(listener).collect()
}
