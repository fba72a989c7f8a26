//! Where this gateway's objects come from: a Kubernetes cluster or a folder of manifests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use portolan_discovery::file::FileSource;
use portolan_discovery::kube::events::{EventSettings, EventWriter};
use portolan_discovery::kube::lease::{Election, LeaseSettings};
use portolan_discovery::kube::{
    self, ConnectOptions, Connected, KubernetesSettings, KubernetesSource, Namespaces, WatchMetrics,
};
use portolan_discovery::{Discovered, Sink, Source, Store};
use portolan_model::{Contribution, Finding, ResourceRef};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::live::{Followed, Live};
use crate::settings::{Name, Settings};
use crate::snapshot::{Place, Snapshot};
use crate::translated;

/// The key of the ConfigMap that holds the settings.
const CONFIG_KEY: &str = "portolan.yaml";

/// So long does the first picture wait for the zone of the own node.
const ZONE_PATIENCE: Duration = Duration::from_secs(1);

/// Where objects come from, found and reachable as far as that can be told without asking.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A folder of manifests.
    Files(PathBuf),
    /// A Kubernetes cluster.
    Kubernetes {
        /// The client, and the namespace that counts as our own.
        connected: Connected,
        /// The metrics of every watch.
        metrics: WatchMetrics,
    },
}

impl Origin {
    /// The origin that the settings ask for.
    pub(crate) async fn choose(settings: &Settings, registry: &Registry) -> anyhow::Result<Self> {
        if let Some(folder) = &settings.files {
            anyhow::ensure!(folder.is_dir(), "--files {}: there is no such folder", folder.display());
            return Ok(Self::Files(folder.clone()));
        }
        let options = ConnectOptions { kubeconfig: settings.kubeconfig.clone(), context: None };
        let mut connected = kube::connect(&options).await?;
        if let Some(namespace) = crate::variable("POD_NAMESPACE") {
            connected.namespace = namespace;
        }
        tracing::info!(
            origin = connected.origin,
            namespace = connected.namespace,
            "using a Kubernetes cluster"
        );
        let metrics =
            WatchMetrics::register(registry).context("the metrics of watches have names of their own")?;
        Ok(Self::Kubernetes { connected, metrics })
    }

    /// The namespace that counts as our own.
    fn namespace(&self) -> &str {
        match self {
            Self::Files(_) => "default",
            Self::Kubernetes { connected, .. } => &connected.namespace,
        }
    }

    /// The ConfigMap with live settings, where there is one.
    pub(crate) fn config_map(&self, settings: &Settings) -> Option<Followed> {
        let Self::Kubernetes { connected, metrics } = self else { return None };
        let Name(name) = settings.config_map.as_ref()?;
        let map = ResourceRef::new("ConfigMap", &*connected.namespace, &**name);
        let followed = kube::config_map::follow(
            connected.client.clone(),
            &connected.namespace,
            name,
            CONFIG_KEY,
            metrics,
        );
        Some(Followed { map, texts: followed.texts, rights: followed.findings })
    }

    /// What a picture from here is of.
    pub(crate) fn place(&self, settings: &Settings) -> Place {
        let (of, namespaces) = match self {
            Self::Files(folder) => (folder.display().to_string(), Namespaces::All),
            Self::Kubernetes { connected, .. } => {
                (connected.server.clone(), namespaces(settings, &connected.namespace))
            }
        };
        let namespaces = match namespaces {
            Namespaces::All => Vec::new(),
            Namespaces::These(names) => names,
        };
        let default_namespace = settings.default_namespace(self.namespace());
        Place { source: self.name(), of, namespaces, default_namespace }
    }

    /// Starts the store and the sources that speak to it, and what keeps the snapshot file. Waits for none of them.
    pub(crate) fn discover(
        &self,
        settings: &Settings,
        snapshot: Option<Snapshot>,
        live: &Live,
        registry: &Registry,
    ) -> anyhow::Result<(Discovered, Option<Findings>)> {
        let mut store = Store::new();
        store.register(registry).context("the metrics of the store have names of their own")?;
        listeners(settings, store.sink("settings", true));
        let sink = store.sink(self.name(), true);
        let discovered = store.subscribe();
        let findings = snapshot.map(|snapshot| snapshot.restore(&mut store, live, registry)).transpose()?;
        tokio::spawn(store.run());
        match self {
            Self::Files(folder) => {
                let namespace = settings.default_namespace(self.namespace());
                let config = live.map(move |settings| translated::for_files(settings, &namespace));
                tokio::spawn(follow(FileSource::new(folder, config), sink));
            }
            Self::Kubernetes { connected, metrics } => {
                kubernetes(connected, settings, live, metrics.clone(), sink);
            }
        }
        Ok((discovered, findings))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }

    /// Writes these findings as Events where there is a Kubernetes cluster to write them to.
    pub(crate) fn report(
        &self,
        settings: &Settings,
        findings: Vec<Findings>,
        registry: &Registry,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Reporting> {
        let Self::Kubernetes { connected, .. } = self else { return Ok(Reporting::default()) };
        if !settings.events {
            return Ok(Reporting::default());
        }
        let identity = identity(crate::variable("POD_NAME"), Path::new("/proc/sys/kernel/hostname"));
        let Name(lease) = &settings.lease_name;
        let lease = LeaseSettings::new(&connected.namespace, lease, &identity);
        let (election, holding) = Election::new(connected.client.clone(), lease);
        let (client, events) = (connected.client.clone(), EventSettings::new(identity));
        let writer = EventWriter::new(client, events, findings, holding, registry)
            .context("the metrics of Events have names of their own")?;
        let rights = vec![election.findings(), writer.findings()];
        tokio::spawn(writer.run());
        Ok(Reporting { rights, election: Some(tokio::spawn(election.run(shutdown.clone()))) })
    }
}

/// Findings as they change.
pub(crate) type Findings = watch::Receiver<Arc<Vec<Finding>>>;

/// The writing of Events.
#[derive(Debug, Default)]
pub(crate) struct Reporting {
    /// The rights that it lacks.
    pub(crate) rights: Vec<Findings>,
    /// Ends once the Lease is released, which the shutdown begins.
    election: Option<JoinHandle<()>>,
}

impl Reporting {
    /// Waits until the Lease is released, so that another replica need not wait for it to run out; not for long.
    pub(crate) async fn end(self) {
        let Some(election) = self.election else { return };
        if timeout(Duration::from_secs(2), election).await.is_err() {
            tracing::info!("the lease is not released in time, it runs out by itself");
        }
    }
}

/// The name of this replica, which no other has: the pod's; outside of pods (and where the pod's name is not told) the
/// host's with the process id, which alone is 1 in every container.
fn identity(pod_name: Option<String>, hostname: &Path) -> String {
    pod_name.unwrap_or_else(|| {
        let host = std::fs::read_to_string(hostname).unwrap_or_default();
        let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("portolan");
        format!("{host}-{}", std::process::id())
    })
}

fn kubernetes(connected: &Connected, settings: &Settings, live: &Live, metrics: WatchMetrics, sink: Sink) {
    let (zone_out, zone) = watch::channel(settings.zone.clone());
    let namespace = settings.default_namespace(&connected.namespace);
    let config = live.map_with(zone, move |settings, zone| {
        translated::for_kubernetes(settings, &namespace, zone.as_deref())
    });
    let watched = KubernetesSettings::new(namespaces(settings, &connected.namespace));
    let source = KubernetesSource::new(connected.client.clone(), watched, config, metrics);
    let node = settings.node_name().filter(|_| settings.zone.is_none());
    let client = connected.client.clone();
    tokio::spawn(async move {
        if let Some(node) = node {
            let asked = tokio::spawn(async move {
                zone_out.send_replace(kube::node::zone(&client, &node).await);
            });
            // The first picture had better know the zone. Where nobody answers, it comes as soon as somebody does.
            if timeout(ZONE_PATIENCE, asked).await.is_err() {
                tracing::info!("the zone of the own node is not known yet");
            }
        }
        follow(source, sink).await;
    });
}

/// The namespaces that are watched: the own one where the settings name none.
fn namespaces(settings: &Settings, own: &str) -> Namespaces {
    match (settings.all_namespaces, &settings.namespaces[..]) {
        (true, _) => Namespaces::All,
        (false, []) => Namespaces::These(vec![own.to_owned()]),
        (false, names) => {
            let each_once: BTreeSet<&Name> = names.iter().collect();
            Namespaces::These(each_once.into_iter().map(|Name(name)| name.clone()).collect())
        }
    }
}

async fn follow(source: impl Source, sink: Sink) {
    let name = source.name();
    if let Err(error) = source.run(sink).await {
        tracing::error!(
            source = name,
            error = format!("{error:#}"),
            "a source ended; what it said stays in force"
        );
    }
}

/// The listeners of the settings, said once.
fn listeners(settings: &Settings, sink: Sink) {
    let listeners = translated::listeners(settings);
    tokio::spawn(async move {
        let contribution = Contribution { listeners, ..Contribution::default() };
        sink.upsert(ResourceRef::new("Setting", "", "listen"), contribution, Instant::now()).await;
        sink.fresh(true);
        sink.synced();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_a_name_of_its_own_without_the_pods() {
        let file = std::env::temp_dir().join(format!("portolan-hostname-{}", std::process::id()));
        std::fs::write(&file, "gateway-7f9c\n").unwrap();
        let pid = std::process::id();
        assert_eq!(identity(None, &file), format!("gateway-7f9c-{pid}"));
        assert_eq!(identity(Some("pod-1".into()), &file), "pod-1");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(identity(None, &file), format!("portolan-{pid}"), "without a host's name");
    }

    #[tokio::test]
    async fn the_end_waits_for_the_lease_to_be_released() {
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        let (released, is_released) = watch::channel(false);
        let election = tokio::spawn(async move {
            begun.await.unwrap();
            released.send_replace(true);
        });
        let end = Reporting { rights: Vec::new(), election: Some(election) }.end();
        tokio::pin!(end);
        tokio::select! {
            biased;
            () = &mut end => panic!("it did not wait"),
            () = tokio::task::yield_now() => begin.send(()).unwrap(),
        }
        end.await;
        assert!(*is_released.borrow());
    }
}
