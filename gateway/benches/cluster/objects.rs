//! Services and EndpointSlices as JSON.

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::{Value, json};

use super::Api;

/// Where everything stands.
pub(crate) const NAMESPACE: &str = "shop";
/// On which port every upstream listens.
pub(crate) const TARGET_PORT: u16 = 8080;

/// One endpoint in a slice.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) address: Ipv4Addr,
    pub(crate) uid: String,
    pub(crate) terminating: bool,
}

impl Api {
    /// Creates a Service that the gateway exposes as `/NAME/**`, with one slice.
    pub(crate) async fn create_service(&self, name: &str, entries: &[Entry]) -> Result<()> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "annotations": { "portolan.dev/expose": "true" } },
            "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": TARGET_PORT }] },
        });
        self.create(&format!("/api/v1/namespaces/{NAMESPACE}/services"), &service).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "protocol": "TCP", "port": TARGET_PORT }],
            "endpoints": endpoints(entries),
        });
        self.create(&slices(), &slice).await
    }

    /// Writes the endpoints of the Service's slice; returns when the API server has acknowledged it.
    pub(crate) async fn write_endpoints(&self, name: &str, entries: &[Entry]) -> Result<()> {
        self.patch(&format!("{}/{name}", slices()), &json!({ "endpoints": endpoints(entries) })).await
    }
}

fn slices() -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
}

fn endpoints(entries: &[Entry]) -> Vec<Value> {
    entries
        .iter()
        .map(|entry| {
            json!({
                "addresses": [entry.address],
                "conditions": {
                    "ready": !entry.terminating,
                    "serving": true,
                    "terminating": entry.terminating,
                },
                "targetRef": { "kind": "Pod", "namespace": NAMESPACE, "name": entry.uid, "uid": entry.uid },
            })
        })
        .collect()
}
