//! Settings: how this process runs, as opposed to what it routes.
//!
//! One table, `settings!` below, says everything about each setting once: its name, its type, its default, whether a
//! change takes effect at once (`live`) or needs a restart (`startup`), and what it means. From it come the flags, the
//! environment variables (`PORTOLAN_…`), the keys of the configuration file, the typed [`Settings`], and
//! `docs/configuration.md`. A flag beats an environment variable, which beats the file, which beats the default.

mod document;
mod resolve;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portolan_model::Balancing;

pub(crate) use document::markdown;
pub(crate) use resolve::{ConfigFile, Flags, Problem, resolve};
pub(crate) use value::{AccessLog, Expose, LogFormat, Name, Percent, Workers};

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// At the next start; a change in the ConfigMap of a running gateway becomes a finding.
    Startup,
    /// At once.
    Live,
}

/// What the table says of one setting.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The flag without its dashes, and the key in the configuration file.
    pub(crate) name: &'static str,
    /// When a changed value takes effect.
    pub(crate) scope: Scope,
    /// Whether it may be given several times.
    pub(crate) list: bool,
    /// Whether the flag may stand without a value, meaning `true`.
    pub(crate) switch: bool,
    /// What stands in for the value in the help.
    pub(crate) placeholder: &'static str,
    /// The default, in the form that a user would write; empty for none.
    pub(crate) default: &'static str,
    /// What it means.
    pub(crate) help: &'static str,
}

impl Spec {
    /// The environment variable of this setting.
    pub(crate) fn variable(&self) -> String {
        format!("PORTOLAN_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

macro_rules! settings {
    ($( $(#[doc = $help:literal])+ $scope:ident $field:ident: $type:ty = $name:literal $default:literal $placeholder:literal by $read:path; )+) => {
        /// Every setting, resolved.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Settings { $( $(#[doc = $help])+ pub(crate) $field: $type, )+ }

        /// The table of settings, in the order of the documentation.
        pub(crate) const SPECS: &[Spec] = &[$(Spec {
            name: $name,
            scope: Scope::$scope,
            list: value::is_list(stringify!($read)),
            switch: value::is_switch(stringify!($read)),
            placeholder: $placeholder,
            default: $default,
            help: concat!($($help, "\n"),+),
        }),+];

        impl Settings {
            fn from_texts(texts: &mut resolve::Texts<'_>) -> Option<Self> {
                $( let $field = texts.read($name, $read); )+
                Some(Self { $( $field: $field?, )+ })
            }

            /// The names of the `startup` settings in which the two differ.
            pub(crate) fn startup_differences(&self, other: &Self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $( if Scope::$scope == Scope::Startup && self.$field != other.$field { names.push($name); } )+
                names
            }

            /// These settings with the `live` ones of `other`.
            pub(crate) fn with_live_of(&self, other: &Self) -> Self {
                Self { $( $field: match Scope::$scope {
                    Scope::Startup => self.$field.clone(),
                    Scope::Live => other.$field.clone(),
                }, )+ }
            }
        }
    };
}

settings! {
    /// Serve the Kubernetes manifests in this folder instead of a Kubernetes cluster, whatever namespace they are in. The
    /// folder is watched.
    Startup files: Option<PathBuf> = "files" "" "DIR" by value::optional;
    /// Addresses for callers from outside (edge role): path and host routes.
    Startup listen: Vec<SocketAddr> = "listen" "0.0.0.0:8080" "ADDR:PORT" by value::socket_list;
    /// Addresses for callers inside the Kubernetes cluster (cluster role): besides, the Services' own names.
    Startup listen_cluster: Vec<SocketAddr> = "listen-cluster" "0.0.0.0:8081" "ADDR:PORT" by value::socket_list;
    /// Addresses for callers from outside (edge role) over TLS 1.2 or 1.3, with HTTP/2 or HTTP/1.1 as ALPN decides. They
    /// need `tls-cert` and `tls-key`.
    Startup listen_tls: Vec<SocketAddr> = "listen-tls" "" "ADDR:PORT" by value::socket_list;
    /// A file with the certificate for `listen-tls` in PEM: the server's own first, then those that vouch for it. It is
    /// followed: a renewed one is shown from the next handshake on.
    Startup tls_cert: Option<PathBuf> = "tls-cert" "" "FILE" by value::optional;
    /// A file with the private key of that certificate in PEM, without a passphrase. It is followed as well.
    Startup tls_key: Option<PathBuf> = "tls-key" "" "FILE" by value::optional;
    /// Address of the status pages for the kubelet and Prometheus: `/livez`, `/readyz`, `/metrics`, nothing else.
    Startup status: SocketAddr = "status" "0.0.0.0:9902" "ADDR:PORT" by value::socket;
    /// Address of the admin pages: the status pages and `/table`, `/findings`, `/explain`. On another address than
    /// loopback it needs `admin-token-file`.
    Startup admin: SocketAddr = "admin" "127.0.0.1:9901" "ADDR:PORT" by value::socket;
    /// A file with the token that callers of the admin pages must send as `Authorization: Bearer TOKEN`.
    Startup admin_token_file: Option<PathBuf> = "admin-token-file" "" "FILE" by value::optional;
    /// Worker threads, each with sockets, connections and timers of its own. `auto` is the CPU quota rounded up, or
    /// the number of cores where there is no quota.
    Startup workers: Workers = "workers" "auto" "N" by value::one;
    /// The form of the log on standard error.
    Startup log_format: LogFormat = "log-format" "text" "text|json" by value::one;
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as
    /// `info,portolan_discovery=debug`.
    Startup log: String = "log" "info" "LEVEL" by value::one;
    /// The watched namespaces of the Kubernetes cluster. None given: the pod's own.
    Startup namespaces: Vec<Name> = "namespaces" "" "NAME" by value::list;
    /// Watch every namespace (needs the ClusterRole of the component `all-namespaces`).
    Startup all_namespaces: bool = "all-namespaces" "false" "BOOL" by value::switch;
    /// The namespace whose Services own `/NAME/**` and the bare authority `NAME`. None given: the pod's own.
    Startup default_namespace: Option<Name> = "default-namespace" "" "NAME" by value::optional;
    /// The domain behind `NAME.NAMESPACE.svc`.
    Startup cluster_domain: String = "cluster-domain" "cluster.local" "DOMAIN" by value::one;
    /// The kubeconfig with which to reach the API server. None given: the pod's ServiceAccount, and outside of a pod
    /// the one that kubectl uses.
    Startup kubeconfig: Option<PathBuf> = "kubeconfig" "" "FILE" by value::optional;
    /// The node that this gateway runs on, for zone hints. In a pod, set it from the downward API.
    Startup node_name: Option<Name> = "node-name" "" "NAME" by value::optional;
    /// The zone that this gateway runs in, for zone hints. None given: the label `topology.kubernetes.io/zone` of its
    /// node, where it may read that.
    Startup zone: Option<String> = "zone" "" "ZONE" by value::optional;
    /// The ConfigMap of this gateway, in its own namespace: its key `portolan.yaml` is followed for `live` settings.
    /// Settings at the start come from `--config`: mount the same ConfigMap there, as `deploy/base` does.
    Startup config_map: Option<Name> = "config-map" "" "NAME" by value::optional;
    /// Keep what is known in this file, and start from it when the source (the API server) does not answer at the start.
    /// The folder must be there and writable, with room for two such files: a megabyte for 4,000 endpoints each. None
    /// given: everything is learned anew. In a pod, put it on an `emptyDir`, which outlives the container.
    Startup snapshot_file: Option<PathBuf> = "snapshot-file" "" "FILE" by value::optional;
    /// How old the picture in `snapshot-file` may be for a start from it. It does not grow old while the gateway is in
    /// touch with its source; its age counts from the moment that touch was lost.
    Startup snapshot_max_age: Duration = "snapshot-max-age" "1h" "TIME" by value::duration;
    /// Write findings as Events onto the Kubernetes objects at fault (one replica does).
    Startup events: bool = "events" "true" "BOOL" by value::switch;
    /// The Lease, in the own namespace, whose holder writes them. Two installations in one namespace need two; the Role
    /// of `deploy/base` grants this one by its name.
    Startup lease_name: Name = "lease-name" "portolan" "NAME" by value::one;
    /// Which Services are routed to: `annotated` takes those with the annotation `portolan.dev/expose: "true"` or in a
    /// namespace with that label; `all` takes every one but `default/kubernetes`, those in `kube-system` and Portolan's
    /// own. `portolan.dev/expose: "false"` always hides.
    Live expose: Expose = "expose" "annotated" "annotated|all" by value::one;
    /// Prefer the endpoints that EndpointSlice hints name for this gateway's zone or node.
    Live zone_hints: bool = "zone-hints" "true" "BOOL" by value::switch;
    /// How requests are spread where a Service does not say it: `round-robin` or `least-connection`.
    Live balance: Balancing = "balance" "round-robin" "NAME" by value::balancing;
    /// How long a connection to an endpoint may take to open.
    Live connect_timeout: Duration = "connect-timeout" "1s" "TIME" by value::duration;
    /// How long an endpoint may take from the end of the request to the head of its response.
    Live response_timeout: Duration = "response-timeout" "60s" "TIME" by value::duration;
    /// How long a body may stand still, in either direction.
    Live stream_idle_timeout: Duration = "stream-idle-timeout" "5m" "TIME" by value::duration;
    /// How long a whole exchange may take; `off` means as long as it likes.
    Live request_timeout: Option<Duration> = "request-timeout" "off" "TIME" by value::duration_or_off;
    /// Tries of a failed request beyond the first, each on another endpoint; 0 turns retries off.
    Live retries: u32 = "retries" "2" "N" by value::retries;
    /// Retries may be at most this share of a Service's requests.
    Live retry_budget: Percent = "retry-budget" "20%" "PERCENT" by value::one;
    /// Failures in a row after which an endpoint is left out for a while; 0 turns passive ejection off.
    Live outlier_failures: u32 = "outlier-failures" "5" "N" by value::number;
    /// The first ejection's length; each further one is longer by as much.
    Live outlier_ejection: Duration = "outlier-ejection" "5s" "TIME" by value::duration;
    /// Peers whose `X-Forwarded-*` and `Forwarded` headers are believed: networks or addresses.
    Live trusted_proxies: Vec<IpNet> = "trusted-proxies" "" "NETWORK" by value::networks;
    /// What is written as access log on standard output, one JSON line per request: `off`, `errors` (status 5xx and
    /// failures of the gateway), `sampled` (every hundredth, and errors) or `all`.
    Live access_log: AccessLog = "access-log" "errors" "off|errors|sampled|all" by value::one;
    /// After SIGTERM, how long connections are still accepted while readiness already fails: longer than the load
    /// balancers before it take to notice.
    Live drain_delay: Duration = "drain-delay" "10s" "TIME" by value::duration_or_zero;
    /// After the drain delay, how long requests in flight may take to finish.
    Live drain_timeout: Duration = "drain-timeout" "30s" "TIME" by value::duration_or_zero;
    /// Sign requests and responses in `Via`, by which a loop is noticed and cut (508).
    Live via: bool = "via" "true" "BOOL" by value::switch;
    /// The name in `Via`. Each process adds a random word of its own, so that gateways that call each other are not
    /// taken for a loop.
    Startup via_name: Name = "via-name" "portolan" "NAME" by value::one;
    /// How long a client may take to send the head of a request.
    Live request_head_timeout: Duration = "request-head-timeout" "10s" "TIME" by value::duration;
    /// How long a client's connection may stay open without a request.
    Live client_idle_timeout: Duration = "client-idle-timeout" "60s" "TIME" by value::duration;
    /// How long an unused connection to an endpoint is kept: shorter than the endpoints themselves keep it.
    Live upstream_idle_timeout: Duration = "upstream-idle-timeout" "4s" "TIME" by value::duration;
    /// The largest body of a request in bytes (413 beyond); `off` means unlimited.
    Live max_body_bytes: Option<u64> = "max-body-bytes" "off" "BYTES" by value::number_or_off;
    /// The most header fields of a request (431 beyond); at most 100.
    Live max_headers: u32 = "max-headers" "100" "N" by value::up_to_100;
    /// The largest head of a request or response in bytes (431 or 502 beyond). Also the most that one direction of one
    /// connection buffers.
    Startup max_head_bytes: u32 = "max-head-bytes" "65536" "BYTES" by value::head_bytes;
    /// The most client connections at once, over all workers. Each costs about 20 KiB, and two file descriptors with the
    /// connection to the endpoint: where the limit of open files allows fewer, that counts.
    Startup max_connections: u32 = "max-connections" "50000" "N" by value::positive;
}

impl Settings {
    /// Every address that is bound, with the setting that asks for it.
    pub(crate) fn binds(&self) -> Vec<(&'static str, SocketAddr)> {
        let edge = self.listen.iter().map(|&bind| ("listen", bind));
        let cluster = self.listen_cluster.iter().map(|&bind| ("listen-cluster", bind));
        let tls = self.listen_tls.iter().map(|&bind| ("listen-tls", bind));
        edge.chain(cluster).chain(tls).chain([("status", self.status), ("admin", self.admin)]).collect()
    }

    /// Whether the admin pages stand on an address that only this machine can reach.
    pub(crate) fn admin_is_local(&self) -> bool {
        self.admin.ip().is_loopback()
    }
}
