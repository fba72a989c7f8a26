//! The zone of the node that this process runs on, for zone hints.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::params::GetParams;
use kube::core::request::Request as Ask;
use kube::{Client, Resource};
use serde::Deserialize;
use tracing::{info, warn};

use super::request::fetch;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Reads the zone of the node `name`, once. It is optional: without the right (`get` on that node, which needs a
/// ClusterRole) or without the label the answer is `None`, the log says so, and zone hints are not followed.
pub async fn zone(client: &Client, name: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata {
        metadata: ObjectMeta,
    }
    let ask = Ask::new(Node::url_path(&(), None)).get_metadata(name, &GetParams::default());
    let ask =
        ask.map_err(|error| warn!(node = name, %error, "node name is not valid, no zone known")).ok()?;
    match fetch::<Metadata>(client, ask, Duration::from_secs(5)).await {
        Ok(node) => {
            let zone = node.metadata.labels.and_then(|mut labels| labels.remove(ZONE));
            info!(node = name, zone, "zone of the own node");
            zone
        }
        Err(failure) => {
            info!(
                node = name, %failure,
                "zone of the own node cannot be read, zone hints are not followed; give --zone or the right to get the node"
            );
            None
        }
    }
}
