//! Changes of objects as they happen, each with the time at which it was heard of.

use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Cluster;

/// A `kubectl get --watch` at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Watch {
    child: Child,
    events: Receiver<Event>,
    what: String,
}

/// One change.
#[derive(Debug)]
pub(crate) struct Event {
    /// When it was heard of: some milliseconds after the API server said it.
    pub(crate) at: Instant,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) kind: String,
    pub(crate) object: Value,
}

impl Watch {
    /// Watches what these arguments of `kubectl get` name, first as it is: `["pods", "-l", "app=hello"]`.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub(crate) fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Watch> {
        let watch = ["get", "--watch", "--output-watch-events", "--output=json"];
        let mut command = cluster.kubectl_command(&[&watch[..], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting a watch")?;
        let output = child.stdout.take().context("its output is piped")?;
        let (sender, events) = sync_channel(1024);
        std::thread::spawn(move || {
            for mut event in serde_json::Deserializer::from_reader(output).into_iter::<Value>().flatten() {
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                let event = Event { at: Instant::now(), kind, object: event["object"].take() };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Watch { child, events, what: arguments.join(" ") })
    }

    /// The next change that has been heard of already.
    pub(crate) fn heard(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The first change for which `look` finds something.
    ///
    /// # Errors
    /// When none comes in time, or the watch ends.
    pub(crate) fn until<T>(&self, limit: Duration, mut look: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    if let Some(it) = look(&event) {
                        return Ok(it);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the watch of {}: nothing within {limit:?}", self.what)
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the watch of {} has ended", self.what),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_ok();
        let _reaped = self.child.wait().is_ok();
    }
}

/// Whether a condition of an object is `True`.
pub(crate) fn has_condition(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == condition && it["status"] == "True")
}
