//! The control plane itself: it starts, survives its API server's death, and leaves nothing behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use portolan_testbed::{ControlPlane, Options, assert_not_left_out_on_ci};

#[test]
fn left_out_only_off_ci() {
    assert_not_left_out_on_ci();
}

#[test]
#[ignore = "needs a control plane: cargo xtask test --only apiserver"]
fn starts_beside_the_shared_one_restarts_and_leaves_nothing() -> Result<()> {
    let shared = ControlPlane::shared()?;
    let own = ControlPlane::start(&Options::default())?;
    own.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: default}}")?;
    own.kill_api_server();
    assert!(own.kubectl(&["get", "--raw", "/readyz"]).is_err());
    assert!(own.check().is_err());
    own.restart_api_server()?;

    // What was written before is still there, and the token opens only what every account may see.
    let kubeconfig = own.service_account_kubeconfig("default", "a")?;
    let kubeconfig = kubeconfig.to_str().context("a name in UTF-8")?;
    own.kubectl(&["--kubeconfig", kubeconfig, "get", "--raw", "/api"])?;
    let refused = own.kubectl(&["--kubeconfig", kubeconfig, "get", "secrets"]).unwrap_err();
    assert!(refused.to_string().contains("system:serviceaccount:default:a"), "{refused:#}");

    let folder = own.folder().to_owned();
    let pids: Vec<String> = ["etcd", "kube-apiserver"]
        .iter()
        .map(|name| fs::read_to_string(folder.join(format!("{name}.pid"))))
        .collect::<Result<_, _>>()?;
    drop(own);
    assert!(!folder.exists());
    let number = |pid_file: &String| pid_file.split_whitespace().next().unwrap_or_default().to_owned();
    let gone = |pid_file| !Path::new("/proc").join(number(pid_file)).exists();
    assert!(pids.iter().all(|pid_file| !number(pid_file).is_empty() && gone(pid_file)));
    shared.check()
}
