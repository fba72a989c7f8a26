//! How the kubelet is started.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::netns::Netns;

pub(super) fn arguments(folder: &Path, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--config={}", folder.join("kubelet.json").display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", super::NAME),
        format!("--node-ip={}", std::net::Ipv4Addr::from(Netns::ADDRESS)),
    ]
}

/// `cgroup` is the name of the cgroup below which the pods live.
pub(super) fn write_configuration(folder: &Path, cgroup: &str, pki: &Path) -> Result<()> {
    // Pods with the DNS of the node have none: nothing outside can be asked.
    fs::write(folder.join("resolv.conf"), "")?;
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki.join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki.join("kubelet.crt"),
        "tlsPrivateKeyFile": pki.join("kubelet.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [super::dns::ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": folder.join("resolv.conf"),
        "cgroupRoot": format!("/{cgroup}"),
        "cgroupDriver": "cgroupfs",
        // Both are refused by default, and both are usual on a developer's machine.
        "failSwapOn": false,
        "failCgroupV1": false,
        // The machine is not the cluster's alone.
        "enforceNodeAllocatable": [],
        "maxPods": 250,
        // Mounted ConfigMaps and Secrets follow their objects within this; the usual minute is long to wait for.
        "syncFrequency": "10s",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        // A full disk is the machine's business: no pod is evicted and no image is collected for it.
        "evictionHard": { "memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%" },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": false,
    });
    fs::write(folder.join("kubelet.json"), format!("{configuration:#}"))?;
    Ok(())
}
