//! A namespace on the API server, a source that watches it, and what it makes of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use portolan_discovery::kube::{
    ConnectOptions, KubernetesSettings, KubernetesSource, Namespaces, WatchMetrics,
};
use portolan_discovery::translate::TranslateConfig;
use portolan_discovery::{Discovered, Source, Store};
use portolan_model::{ClusterId, Finding, Readiness, ResourceRef, Snapshot};
use portolan_testbed::ControlPlane;
use serde_json::Value;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long anything may take to arrive. Far more than it takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where Portolan itself runs, by `deploy/base`.
pub(crate) const OWN_NAMESPACE: &str = "service-discovery";

pub(crate) struct World {
    pub(crate) control_plane: Arc<ControlPlane>,
    /// The administrator's.
    pub(crate) admin: Client,
    /// The test's own.
    pub(crate) namespace: String,
    pub(crate) discovered: Discovered,
    _tasks: JoinSet<()>,
}

/// How the source under test is set up.
pub(crate) struct Setup {
    control_plane: Arc<ControlPlane>,
    pub(crate) namespace: String,
    pub(crate) namespaces: Namespaces,
    pub(crate) translate: TranslateConfig,
    pub(crate) account: &'static str,
    /// Applied to the test's namespace before the source starts.
    access: bool,
}

impl World {
    /// A fresh namespace on the shared API server, watched by itself, its Services at `/NAME`.
    pub(crate) async fn new() -> World {
        Setup::new().await.start().await
    }

    /// Writes YAML documents (server-side apply) into the test's namespace, in the order in which they stand.
    pub(crate) async fn apply(&self, yaml: &str) {
        for object in documents(yaml) {
            self.write(object).await.unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        }
    }

    /// Writes one YAML document that the API server is to refuse, and returns why it does.
    pub(crate) async fn refused(&self, yaml: &str) -> String {
        let object = documents(yaml).into_iter().next().unwrap();
        self.write(object).await.expect_err("the API server was expected to refuse it").to_string()
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The snapshot, once it is as wanted.
    pub(crate) async fn snapshot(&self, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.discovered.snapshots.clone();
        match timeout(PATIENCE, snapshots.wait_for(|snapshot| wanted(snapshot))).await {
            Ok(Ok(snapshot)) => Arc::clone(&snapshot),
            Ok(Err(_)) => panic!("the store has ended"),
            Err(_) => panic!("not in time; {}", self.picture()),
        }
    }

    /// Waits until the endpoints of a port of a Service are these, in any order.
    pub(crate) async fn endpoints(&self, service: &str, port: u16, wanted: &[(&str, Readiness)]) {
        let mut wanted: Vec<(SocketAddr, Readiness)> =
            wanted.iter().map(|(address, readiness)| (address.parse().unwrap(), *readiness)).collect();
        wanted.sort_unstable();
        self.snapshot(|snapshot| endpoints(snapshot, &self.cluster(service, port)) == Some(wanted.clone()))
            .await;
    }

    /// Waits for a finding with this reason on this object.
    pub(crate) async fn finding(&self, reason: &str, kind: &str, name: &str) -> Finding {
        let resource = ResourceRef::new(kind, self.namespace.as_str(), name);
        self.finding_where(|finding| finding.reason == reason && finding.resource == resource).await
    }

    /// Waits for any finding on this object.
    pub(crate) async fn finding_on(&self, kind: &str, name: &str) -> Finding {
        self.finding_where(|finding| &*finding.resource.kind == kind && &*finding.resource.name == name).await
    }

    /// Waits for a finding.
    pub(crate) async fn finding_where(&self, is_wanted: impl Fn(&Finding) -> bool) -> Finding {
        let mut findings = self.discovered.findings.clone();
        let found = timeout(PATIENCE, findings.wait_for(|findings| findings.iter().any(&is_wanted))).await;
        match found {
            Ok(Ok(findings)) => findings.iter().find(|finding| is_wanted(finding)).unwrap().clone(),
            Ok(Err(_)) => panic!("the store has ended"),
            Err(_) => panic!("no such finding; {}", self.picture()),
        }
    }

    /// Writes a Role and what binds it.
    pub(crate) async fn grant(&self, role: String) {
        grant(&self.control_plane, role).await;
    }

    /// Waits until there is no finding at all.
    pub(crate) async fn no_findings(&self) {
        let mut findings = self.discovered.findings.clone();
        let gone = timeout(PATIENCE, findings.wait_for(|findings| findings.is_empty())).await;
        assert!(gone.is_ok(), "{}", self.picture());
    }

    pub(crate) fn cluster(&self, service: &str, port: u16) -> ClusterId {
        ClusterId::new(&self.namespace, service, port)
    }

    fn picture(&self) -> String {
        let snapshot = self.discovered.snapshots.borrow();
        let clusters: Vec<_> = snapshot.clusters.keys().map(|id| (id, endpoints(&snapshot, id))).collect();
        let (findings, sources) = (self.discovered.findings.borrow(), self.discovered.sources.borrow());
        format!("clusters: {clusters:?}\nfindings: {findings:#?}\nsources: {sources:?}")
    }

    async fn write(&self, object: Value) -> kube::Result<DynamicObject> {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.api(&kind).patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let client = self.admin.clone();
        match kind {
            "Service" => Api::namespaced_with(client, &self.namespace, &ApiResource::erase::<Service>(&())),
            "EndpointSlice" => {
                Api::namespaced_with(client, &self.namespace, &ApiResource::erase::<EndpointSlice>(&()))
            }
            "Namespace" => Api::all_with(client, &ApiResource::erase::<Namespace>(&())),
            other => panic!("no such kind in these tests: {other}"),
        }
    }
}

impl Setup {
    /// A fresh namespace on the shared API server, in which the account of `deploy/base` may do what
    /// `deploy/namespace-access` says.
    pub(crate) async fn new() -> Setup {
        let control_plane = Arc::new(ControlPlane::shared().unwrap());
        static BASE: OnceCell<()> = OnceCell::const_new();
        BASE.get_or_init(|| apply_kustomization(&control_plane, "base", &[])).await;
        Setup::on(control_plane).await
    }

    /// The same on another control plane, where `deploy/base` is not applied yet.
    pub(crate) async fn on_fresh(control_plane: Arc<ControlPlane>) -> Setup {
        apply_kustomization(&control_plane, "base", &[]).await;
        Setup::on(control_plane).await
    }

    async fn on(control_plane: Arc<ControlPlane>) -> Setup {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Setup {
            control_plane,
            namespaces: Namespaces::These(vec![namespace.clone()]),
            translate: TranslateConfig::kubernetes(namespace.clone()),
            namespace,
            account: "portolan",
            access: true,
        }
    }

    /// Leaves the rights in the test's namespace to the test.
    pub(crate) fn without_access(mut self) -> Setup {
        self.access = false;
        self
    }

    /// The control plane.
    pub(crate) fn control_plane(&self) -> Arc<ControlPlane> {
        Arc::clone(&self.control_plane)
    }

    /// Creates the namespace and starts the source.
    pub(crate) async fn start(self) -> World {
        kubectl(&self.control_plane, &["create", "namespace", &self.namespace]).await;
        if self.access {
            apply_kustomization(&self.control_plane, "namespace-access", &["--namespace", &self.namespace])
                .await;
        }
        self.start_source().await
    }

    /// Creates the namespace, grants this Role and starts the source.
    pub(crate) async fn start_with_role(self, role: String) -> World {
        kubectl(&self.control_plane, &["create", "namespace", &self.namespace]).await;
        grant(&self.control_plane, role).await;
        self.start_source().await
    }

    async fn start_source(self) -> World {
        let Setup { control_plane, namespace, namespaces, translate, account, access: _ } = self;
        let client = connect(account_kubeconfig(&control_plane, account).await).await;
        let mut store = Store::new();
        let sink = store.sink("kubernetes", true);
        let discovered = store.subscribe();
        let (_, translate) = watch::channel(Arc::new(translate));
        let metrics = WatchMetrics::register(&prometheus::Registry::new()).unwrap();
        let source = KubernetesSource::new(client, KubernetesSettings::new(namespaces), translate, metrics);
        let mut tasks = JoinSet::new();
        tasks.spawn(store.run());
        tasks.spawn(async move { source.run(sink).await.unwrap() });
        let admin = connect(control_plane.kubeconfig()).await;
        World { control_plane, admin, namespace, discovered, _tasks: tasks }
    }
}

/// A client that logs in by a kubeconfig, as the gateway does.
pub(crate) async fn connect(kubeconfig: PathBuf) -> Client {
    let options = ConnectOptions { kubeconfig: Some(kubeconfig), ..ConnectOptions::default() };
    portolan_discovery::kube::connect(&options).await.unwrap().client
}

/// A kubeconfig of an account in Portolan's own namespace.
pub(crate) async fn account_kubeconfig(control_plane: &Arc<ControlPlane>, account: &'static str) -> PathBuf {
    let control_plane = Arc::clone(control_plane);
    let kubeconfig = move || control_plane.service_account_kubeconfig(OWN_NAMESPACE, account).unwrap();
    tokio::task::spawn_blocking(kubeconfig).await.unwrap()
}

/// Runs kubectl as the administrator.
pub(crate) async fn kubectl(control_plane: &Arc<ControlPlane>, arguments: &[&str]) -> String {
    let control_plane = Arc::clone(control_plane);
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        control_plane.kubectl(&arguments).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn grant(control_plane: &Arc<ControlPlane>, role: String) {
    let control_plane = Arc::clone(control_plane);
    tokio::task::spawn_blocking(move || control_plane.apply(&role)).await.unwrap().unwrap();
}

/// Applies `deploy/FOLDER`.
async fn apply_kustomization(control_plane: &Arc<ControlPlane>, folder: &str, more: &[&str]) {
    let path = deploy().join(folder);
    let apply = ["apply", "--server-side", "--validate=strict", "-k", path.to_str().unwrap()];
    kubectl(control_plane, &[&apply, more].concat()).await;
}

pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn documents(yaml: &str) -> Vec<Value> {
    let parse = |text: &str| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    yaml.split("\n---\n").map(parse).collect()
}

/// The endpoints of a cluster, sorted; nothing if there is no such cluster.
fn endpoints(snapshot: &Snapshot, cluster: &ClusterId) -> Option<Vec<(SocketAddr, Readiness)>> {
    let endpoints = snapshot.clusters.get(cluster)?.endpoints.iter();
    let mut endpoints: Vec<_> =
        endpoints.map(|endpoint| (endpoint.key.address, endpoint.readiness)).collect();
    endpoints.sort_unstable();
    Some(endpoints)
}
