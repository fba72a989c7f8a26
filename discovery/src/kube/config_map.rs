//! Follows one key of one ConfigMap, by name, through the API: a mounted file would lag a minute behind.
//!
//! Rights: `get`, `list` and `watch` on `configmaps`, which may be limited to the one name (`resourceNames`), because the
//! list and the watch select by `metadata.name`. Without them a change needs a restart; the log and a finding say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use portolan_model::Finding;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument, info_span, warn};

use super::access::{Access, Wanted};
use super::metrics::WatchMetrics;
use super::watch::{Closed, Observer, Report, Target, Watch, WatchTimings};

/// What is told of a followed key.
#[derive(Debug)]
pub struct Followed {
    /// Its text now and after each change. It is `None` before the first look, which counts as a change, and while the
    /// ConfigMap or the key does not exist; while the API server is away or the right is missing, what was last seen
    /// stays.
    pub texts: watch::Receiver<Option<Arc<str>>>,
    /// The right that is missing, while it is.
    pub findings: watch::Receiver<Arc<Vec<Finding>>>,
}

/// Starts following the key `key` of the ConfigMap `name` in `namespace`. The task ends when the last receiver of texts is
/// dropped.
///
/// Call it on the control runtime.
pub fn follow(client: Client, namespace: &str, name: &str, key: &str, metrics: &WatchMetrics) -> Followed {
    follow_with(client, namespace, name, key, metrics, WatchTimings::default())
}

/// [`follow`] with other time-outs.
pub fn follow_with(
    client: Client,
    namespace: &str,
    name: &str,
    key: &str,
    metrics: &WatchMetrics,
    timings: WatchTimings,
) -> Followed {
    let (text, texts) = watch::channel(None);
    let span = info_span!("watch", kind = "ConfigMap", namespace, name);
    let target = Target {
        kind: "ConfigMap".into(),
        path: ConfigMap::url_path(&(), Some(namespace)),
        fields: Some(format!("metadata.name={name}")),
        metadata_only: false,
    };
    let access = Access::new(Wanted {
        resource: "configmaps",
        verbs: "get, list and watch",
        meaning: "A change of its settings is not seen before a restart",
        granted_by: "deploy/base",
    });
    let findings = access.findings();
    let observer = Follower {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        text: text.clone(),
        has_looked: false,
        access,
    };
    let watch = Watch::<ConfigMap, _>::new(client, target, timings, metrics.of("ConfigMap"), observer);
    let task = async move {
        tokio::select! {
            () = watch.run() => {}
            () = text.closed() => {}
        }
    };
    tokio::spawn(task.instrument(span));
    Followed { texts, findings }
}

struct Follower {
    namespace: String,
    key: String,
    text: watch::Sender<Option<Arc<str>>>,
    has_looked: bool,
    access: Access,
}

impl Follower {
    fn publish(&mut self, object: Option<&ConfigMap>) {
        let new = object
            .and_then(|object| object.data.as_ref()?.get(&self.key))
            .map(|text| Arc::from(text.as_str()));
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        self.text.send_if_modified(|old| {
            let changed = *old != new || is_first;
            *old = new;
            changed
        });
    }
}

impl Observer<ConfigMap> for Follower {
    async fn report(&mut self, report: Report<ConfigMap>, _observed: Instant) -> Result<(), Closed> {
        match report {
            Report::Listed { objects, malformed, .. } if malformed.is_empty() => {
                self.publish(objects.first());
            }
            Report::Applied(object) => self.publish(Some(&object)),
            Report::Deleted(_) => self.publish(None),
            Report::Listed { malformed, .. } => {
                for object in malformed {
                    warn!(resource = %object.resource, error = object.error, "ConfigMap cannot be read, keeping the last");
                }
            }
            Report::Malformed(object) => {
                warn!(resource = %object.resource, error = object.error, "ConfigMap cannot be read, keeping the last");
            }
            Report::Listening => self.access.tried(&self.namespace, Ok(())),
            Report::Lost(failure) => self.access.tried::<()>(&self.namespace, Err(&failure)),
        }
        Ok(())
    }
}

/// A ConfigMap, as far as it is read.
#[derive(Debug, Deserialize)]
struct ConfigMap {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

impl Resource for ConfigMap {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind(_: &()) -> std::borrow::Cow<'_, str> {
        "ConfigMap".into()
    }

    fn group(_: &()) -> std::borrow::Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> std::borrow::Cow<'_, str> {
        "configmaps".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
