//! The manifests in `deploy/`: a real API server admits them as they stand, and the controllers make pods of them
//! although the namespace enforces the restricted pod security level.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portolan_testbed::{ControlPlane, assert_not_left_out_on_ci};

/// The namespace of `deploy/base`, and the level that the base itself only warns about.
const NAMESPACE: &str = "service-discovery";
const ENFORCED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// A pod that the restricted level refuses.
const PRIVILEGED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: privileged, namespace: service-discovery}
spec:
  containers:
    - {name: a, image: a, securityContext: {privileged: true}}
";

#[test]
fn left_out_only_off_ci() {
    assert_not_left_out_on_ci();
}

/// One after the other: every kustomization names the same namespace.
#[test]
#[ignore = "needs a control plane: cargo xtask test --only deploy"]
fn every_kustomization_is_admitted_and_its_pods_are_created() -> Result<()> {
    let control_plane = ControlPlane::shared()?;
    let (_copy, everywhere) = with_all_namespaces()?;
    for folder in [deploy().join("overlays/nodeport"), deploy().join("overlays/loadbalancer"), everywhere] {
        created(&control_plane, &folder).with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a control plane: cargo xtask test --only deploy"]
fn access_to_one_more_namespace_is_admitted() -> Result<()> {
    let control_plane = ControlPlane::shared()?;
    control_plane.kubectl(&["create", "namespace", "billing"])?;
    let role = deploy().join("namespace-access");
    let role = role.to_str().context("the path is UTF-8")?;
    control_plane.kubectl(&["apply", "--server-side", "--validate=strict", "-n", "billing", "-k", role])?;
    Ok(())
}

/// Applies a kustomization and the examples into a fresh enforcing namespace, sees the pods, removes the namespace.
fn created(control_plane: &ControlPlane, folder: &Path) -> Result<()> {
    control_plane.kubectl(&["create", "namespace", NAMESPACE])?;
    control_plane.kubectl(&["label", "namespace", NAMESPACE, ENFORCED])?;
    apply(control_plane, folder)?;
    let enforcing = control_plane.kubectl(&["get", "namespaces", "-l", ENFORCED, "-o", "name"])?;
    ensure!(enforcing.contains(NAMESPACE), "the base must not take the enforced level away");
    let refused = control_plane.apply(PRIVILEGED).err().context("a privileged pod must be refused")?;
    ensure!(format!("{refused:#}").contains("violates PodSecurity"), "{refused:#}");

    pods_created(control_plane, "portolan")?;
    apply(control_plane, &deploy().join("examples"))?;
    pods_created(control_plane, "echo")?;
    control_plane.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"])?;
    Ok(())
}

/// Every pod of a Deployment is there, Pending (there is no scheduler), and none was refused.
fn pods_created(control_plane: &ControlPlane, deployment: &str) -> Result<()> {
    let deployment = format!("deployment/{deployment}");
    let replicas = in_namespace(control_plane, &["get", &deployment, "-o", "jsonpath={.spec.replicas}"])?;
    let condition = format!("--for=jsonpath={{.status.updatedReplicas}}={replicas}");
    let created = in_namespace(control_plane, &["wait", &deployment, &condition, "--timeout=60s"]);
    let events = in_namespace(control_plane, &["get", "events"])?;
    ensure!(!events.contains("FailedCreate"), "a pod was refused:\n{events}");
    created.with_context(|| format!("{deployment}: no pods within a minute; events:\n{events}"))?;
    let phases = in_namespace(control_plane, &["get", "pods", "-o", "jsonpath={.items[*].status.phase}"])?;
    ensure!(phases.split(' ').all(|phase| phase == "Pending"), "only pending pods are expected: {phases:?}");
    Ok(())
}

fn in_namespace(control_plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
    control_plane.kubectl(&[arguments, &["--namespace", NAMESPACE]].concat())
}

/// `kubectl apply -k` as the README says it, validated by the API server; a warning is a failure too.
fn apply(control_plane: &ControlPlane, folder: &Path) -> Result<()> {
    let mut command = control_plane.command(control_plane.kubectl_program());
    command.args(["apply", "--server-side", "--validate=strict", "-k"]).arg(folder);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl apply failed ({}): {said}", output.status);
    ensure!(!said.contains("Warning"), "the API server warns: {said}");
    Ok(())
}

/// The overlay that `components/all-namespaces` tells its reader to write, in a copy of `deploy/`.
fn with_all_namespaces() -> Result<(tempfile::TempDir, PathBuf)> {
    let copy = tempfile::tempdir()?;
    let status = Command::new("cp").arg("-R").arg(deploy()).arg(copy.path().join("deploy")).status()?;
    ensure!(status.success(), "cannot copy deploy/");
    let overlay = copy.path().join("deploy/overlays/everywhere");
    std::fs::create_dir(&overlay)?;
    let kustomization = "
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../nodeport]
components: [../../components/all-namespaces]
";
    std::fs::write(overlay.join("kustomization.yaml"), kustomization)?;
    Ok((copy, overlay))
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}
