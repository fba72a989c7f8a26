//! Who may know whom, beyond what `deny.toml` can say.

use anyhow::{Context, Result, bail};

use crate::tools::cargo;

/// The data path knows the model and nothing of Kubernetes, not even through somebody else.
const DATA_PATH: &str = "portolan-proxy";
const UNKNOWN_TO_IT: [&str; 3] = ["kube", "k8s-openapi", "portolan-discovery"];

pub(super) fn check() -> Result<()> {
    let output = cargo()
        .args(["tree", "--locked", "--package", DATA_PATH, "--edges", "normal,build", "--prefix", "none"])
        .output()
        .context("cannot run `cargo tree`")?;
    if !output.status.success() {
        bail!("`cargo tree` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let tree = String::from_utf8_lossy(&output.stdout);
    let known = unwanted(&tree);
    if !known.is_empty() {
        bail!("{DATA_PATH} must not depend on {}: see `cargo tree --package {DATA_PATH}`", known.join(", "));
    }
    Ok(())
}

fn unwanted(tree: &str) -> Vec<&str> {
    let mut names: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| UNKNOWN_TO_IT.contains(name) || name.starts_with("kube-"))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_kubernetes_at_any_depth() {
        let clean =
            "portolan-proxy v0.1.0 (/x)\nhyper v1.12.0\nkubelike v1.0.0\nportolan-model v0.1.0 (/x)\n";
        assert!(unwanted(clean).is_empty());
        let dirty = format!("{clean}kube v5.0.0\nkube-client v5.0.0 (*)\nkube v5.0.0 (*)\n");
        assert_eq!(unwanted(&dirty), ["kube", "kube-client"]);
    }
}
