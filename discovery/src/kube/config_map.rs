//! Follows one key of one ConfigMap, by name, through the API: a mounted file would lag a minute behind.
//!
//! Rights: `get`, `list` and `watch` on `configmaps`, which may be limited to the one name (`resourceNames`), because the
//! list and the watch select by `metadata.name`. Without them a change needs a restart, and the log says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument, info_span, warn};

use super::metrics::WatchMetrics;
use super::watch::{Closed, Observer, Report, Target, Watch, WatchTimings};

/// Starts following the key `key` of the ConfigMap `name` in `namespace`: its text now and after each change. It is `None`
/// before the first look and while the ConfigMap or the key does not exist; while the API server is away or the
/// right is missing, what was last seen stays. The task ends when the last receiver is dropped.
///
/// Call it on the control runtime.
pub fn follow(
    client: Client,
    namespace: &str,
    name: &str,
    key: &str,
    metrics: &WatchMetrics,
) -> watch::Receiver<Option<Arc<str>>> {
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
) -> watch::Receiver<Option<Arc<str>>> {
    let (text, receiver) = watch::channel(None);
    let span = info_span!("watch", kind = "ConfigMap", namespace, name);
    let target = Target {
        kind: "ConfigMap".into(),
        path: ConfigMap::url_path(&(), Some(namespace)),
        fields: Some(format!("metadata.name={name}")),
        metadata_only: false,
    };
    let observer = Follower { key: key.to_owned(), text: text.clone() };
    let watch = Watch::<ConfigMap, _>::new(client, target, timings, metrics.of("ConfigMap"), observer);
    let task = async move {
        tokio::select! {
            () = watch.run() => {}
            () = text.closed() => {}
        }
    };
    tokio::spawn(task.instrument(span));
    receiver
}

struct Follower {
    key: String,
    text: watch::Sender<Option<Arc<str>>>,
}

impl Follower {
    fn publish(&self, object: Option<&ConfigMap>) {
        let new = object
            .and_then(|object| object.data.as_ref()?.get(&self.key))
            .map(|text| Arc::from(text.as_str()));
        self.text.send_if_modified(|old| {
            let changed = *old != new;
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
            Report::Listening | Report::Lost(_) => {}
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
