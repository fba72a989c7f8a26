//! The zone of the node that this process runs on, for zone hints.

use std::ops::ControlFlow;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::params::GetParams;
use kube::core::request::Request as Ask;
use kube::{Client, Resource};
use serde::Deserialize;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::backoff::random_between;
use super::request::{Failure, fetch};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one question to the next, while there is no answer.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

const ZONE: &str = "topology.kubernetes.io/zone";

/// Reads the zone of the node `name`, once. It is optional: without the right (`get` on that node, which needs a
/// ClusterRole) or without the label the answer is `None`, the log says so, and zone hints are not followed. While the
/// API server does not answer it is asked again, for as long as the future is polled.
pub async fn zone(client: &Client, name: &str) -> Option<String> {
    loop {
        match ask(client, name).await {
            ControlFlow::Break(zone) => return zone,
            ControlFlow::Continue(failure) => {
                debug!(node = name, %failure, "zone of the own node cannot be read yet");
                sleep(random_between(RETRY.0, RETRY.1)).await;
            }
        }
    }
}

async fn ask(client: &Client, name: &str) -> ControlFlow<Option<String>, Failure> {
    #[derive(Deserialize)]
    struct Metadata {
        metadata: ObjectMeta,
    }
    let ask = match Ask::new(Node::url_path(&(), None)).get_metadata(name, &GetParams::default()) {
        Ok(ask) => ask,
        Err(error) => {
            warn!(node = name, %error, "node name is not valid, no zone known");
            return ControlFlow::Break(None);
        }
    };
    match fetch::<Metadata>(client, ask, PATIENCE).await {
        Ok(node) => {
            let zone = node.metadata.labels.and_then(|mut labels| labels.remove(ZONE));
            info!(node = name, zone, "zone of the own node");
            ControlFlow::Break(zone)
        }
        Err(failure) if failure.is_refusal() => {
            info!(
                node = name, %failure,
                "zone of the own node cannot be read, zone hints are not followed; give --zone or the right to get the node"
            );
            ControlFlow::Break(None)
        }
        Err(failure) => ControlFlow::Continue(failure),
    }
}
