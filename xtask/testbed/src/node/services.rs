//! How the scheduler and kube-proxy are started.

use std::path::Path;

pub(super) fn scheduler_arguments(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ]
}

pub(super) fn proxy_arguments(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", super::NAME),
        "--proxy-mode=iptables".to_owned(),
        "--cluster-cidr=10.244.0.0/16".to_owned(),
        // NodePorts are at the node's address; on localhost they would need a setting of the whole machine.
        "--iptables-localhost-nodeports=false".to_owned(),
        // Zero leaves the kernel's own values: those of connection tracking belong to the whole machine.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]
}
