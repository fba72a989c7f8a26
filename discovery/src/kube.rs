//! The Kubernetes source: Services, EndpointSlices and the labels of Namespaces, from an API server.
//!
//! ```text
//! watch (one per kind and namespace) ─┐
//! watch …                             ├─► follower: Index ─► translate ─► Sink
//! namespace labels (watch or poll)   ─┘        └► findings of the source itself
//! ```
//!
//! # What happens when the API server does not do its part
//!
//! Whatever it does, what was last known stays in force; only how fresh it is changes. Services and EndpointSlices of
//! every watched namespace are needed before the source counts as synced; the labels of namespaces are not: where they are
//! denied, a finding says so and they count as absent.
//!
//! # Rights
//!
//! | what | group | resource | verbs | needed |
//! |---|---|---|---|---|
//! | discovery | (core) | `services` | `list`, `watch`, and `get` for Events | in each watched namespace, or everywhere for all |
//! | discovery | `discovery.k8s.io` | `endpointslices` | `list`, `watch`, and `get` for Events | as above |
//! | namespace labels, some namespaces | (core) | `namespaces` | `get` | in a Role of each watched namespace; may be left out |
//! | namespace labels, all namespaces | (core) | `namespaces` | `list`, `watch` | in a ClusterRole; may be left out |
//! | settings | (core) | `configmaps`, limited to its name | `get`, `list`, `watch` | in the own namespace |
//! | Events | `events.k8s.io` | `events` | `create`, `patch` | in each watched namespace; may be left out, which is a finding |
//! | Lease | `coordination.k8s.io` | `leases` | `create` | in the own namespace, for Events |
//! | Lease | `coordination.k8s.io` | `leases`, limited to its name | `get`, `update` | in the own namespace, for Events |
//! | zone of the own node | (core) | `nodes` | `get` | in a ClusterRole; may be left out (`--zone` instead) |

mod access;
mod backoff;
pub mod config_map;
mod connect;
mod decode;
pub mod events;
mod follower;
pub mod lease;
mod lines;
mod metrics;
mod namespace;
pub mod node;
mod request;
mod token_file;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch as watch_channel};
use tokio::task::JoinSet;
use tracing::{Instrument, Span, info_span};

pub use backoff::BackoffTimings;
pub use connect::{ConnectError, ConnectOptions, Connected, connect};
pub use metrics::WatchMetrics;
pub use watch::WatchTimings;

use crate::objects::Namespace;
use crate::source::{Sink, Source};
use crate::translate::{ObjectEvent, TranslateConfig};
use follower::{Followed, Follower, Mouthpiece};
use namespace::Poll;
use watch::{Target, Watch};

/// What is watched, and how long each step may take.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// The namespaces that are watched.
    pub namespaces: Namespaces,
    /// The time-outs and waits of each watch.
    pub timings: WatchTimings,
    /// From one look at a namespace's labels to the next, where they are polled.
    pub namespace_poll: Duration,
    /// So long may a watch be closed before the source counts as out of touch.
    pub patience: Duration,
}

impl KubernetesSettings {
    /// These namespaces with the usual times.
    pub fn new(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            timings: WatchTimings::default(),
            namespace_poll: Duration::from_secs(10),
            patience: Duration::from_secs(3),
        }
    }
}

/// Which namespaces are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Every one; needs a ClusterRole.
    All,
    /// These; a Role in each is enough.
    These(Vec<String>),
}

/// The source `kubernetes`.
pub struct KubernetesSource {
    client: Client,
    settings: KubernetesSettings,
    translate: watch_channel::Receiver<Arc<TranslateConfig>>,
    metrics: WatchMetrics,
}

impl std::fmt::Debug for KubernetesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesSource").field("settings", &self.settings).finish()
    }
}

impl KubernetesSource {
    /// A source that has done nothing yet. A change of the translation's configuration takes effect while it runs.
    pub fn new(
        client: Client,
        settings: KubernetesSettings,
        translate: watch_channel::Receiver<Arc<TranslateConfig>>,
        metrics: WatchMetrics,
    ) -> Self {
        Self { client, settings, translate, metrics }
    }
}

impl Source for KubernetesSource {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn run(self, sink: Sink) -> anyhow::Result<()> {
        let (sender, inbox) = mpsc::channel(1024);
        let mut watches = Watches { source: &self, sender, followed: Vec::new(), tasks: JoinSet::new() };
        match &self.settings.namespaces {
            Namespaces::All => {
                watches.add_required(None);
                watches.watch(None, false, ObjectEvent::Namespace);
            }
            Namespaces::These(names) => {
                for name in names {
                    watches.add_required(Some(name));
                    watches.poll_namespace(name);
                }
            }
        }
        // The tasks end when this future is dropped: they live in the set.
        let Watches { followed, mut tasks, sender, .. } = watches;
        drop(sender);
        let follower = Follower::new(sink, followed, self.translate.clone(), self.settings.patience);
        tokio::select! {
            () = follower.run(inbox) => Ok(()),
            // A watch never ends while it is listened to. If one panicked, what it watched would silently grow old.
            ended = tasks.join_next() => anyhow::bail!("a watch of the API server has ended: {ended:?}"),
        }
    }
}

/// The watches of a source as they are started.
struct Watches<'a> {
    source: &'a KubernetesSource,
    sender: mpsc::Sender<follower::Message>,
    followed: Vec<Followed>,
    tasks: JoinSet<()>,
}

impl Watches<'_> {
    fn add_required(&mut self, namespace: Option<&str>) {
        self.watch(namespace, true, ObjectEvent::Service);
        // Slices without the label that names their Service too: a slice that nobody gets is a finding.
        self.watch(namespace, true, ObjectEvent::EndpointSlice);
    }

    fn watch<K>(&mut self, namespace: Option<&str>, required: bool, event: fn(K) -> ObjectEvent)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
    {
        let kind: Arc<str> = K::kind(&()).into();
        let target = Target {
            kind: Arc::clone(&kind),
            path: K::url_path(&(), namespace),
            fields: None,
            // Of what is not required nothing but metadata is read.
            metadata_only: !required,
        };
        let mouthpiece = self.follow(&kind, resource_name::<K>(), namespace, required, event);
        let (client, timings) = (self.source.client.clone(), self.source.settings.timings);
        let watch = Watch::new(client, target, timings, self.source.metrics.of(&kind), mouthpiece);
        self.tasks.spawn(watch.run().instrument(span(&kind, namespace)));
    }

    fn poll_namespace(&mut self, name: &str) {
        let observer =
            self.follow("Namespace", resource_name::<Namespace>(), Some(name), false, ObjectEvent::Namespace);
        let poll = Poll {
            client: self.source.client.clone(),
            namespace: name.to_owned(),
            every: self.source.settings.namespace_poll,
            timings: self.source.settings.timings,
            metrics: self.source.metrics.of("Namespace"),
            observer,
        };
        self.tasks.spawn(poll.run().instrument(span("Namespace", Some(name))));
    }

    fn follow<K>(
        &mut self,
        kind: &str,
        resource: String,
        namespace: Option<&str>,
        required: bool,
        event: fn(K) -> ObjectEvent,
    ) -> Mouthpiece<K> {
        let watch = self.followed.len();
        self.followed.push(Followed::new(resource, namespace, required));
        Mouthpiece { watch, kind: kind.into(), sender: self.sender.clone(), event }
    }
}

/// As RBAC spells it: `endpointslices.discovery.k8s.io`.
fn resource_name<K: Resource<DynamicType = ()>>() -> String {
    let (plural, group) = (K::plural(&()), K::group(&()));
    if group.is_empty() { plural.into() } else { format!("{plural}.{group}") }
}

fn span(kind: &str, namespace: Option<&str>) -> Span {
    info_span!("watch", kind, namespace = namespace.unwrap_or("(all)"))
}
