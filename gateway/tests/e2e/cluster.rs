//! The shared cluster: the images on its node, Portolan deployed as a user would deploy it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use portolan_testbed::{ControlPlane, Image};
use serde_json::Value;

/// Where Portolan and every application of the walk live.
pub(crate) const NAMESPACE: &str = "service-discovery";
/// The node; every NodePort is there.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 1);

/// The cluster of this run, with Portolan on it.
#[derive(Debug)]
pub(crate) struct Cluster {
    control_plane: ControlPlane,
}

/// The cluster of this run; the first caller loads the images and deploys Portolan.
///
/// # Errors
/// When there is no cluster, an image is missing, or Portolan does not become ready.
pub(crate) fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::prepare().map_err(|error| format!("{error:#}")));
    cluster.as_ref().map_err(|error| anyhow!("{error}"))
}

impl Cluster {
    fn prepare() -> Result<Cluster> {
        let cluster = Cluster { control_plane: ControlPlane::shared()? };
        ensure!(cluster.control_plane.has_node(), "the walk needs a node: cargo xtask test --only e2e");
        cluster.load_images(&images()?)?;
        cluster.deploy()?;
        Ok(cluster)
    }

    /// Beside `portolan-echo:dev` the same under the tags `v1` and `v2`, which say so in the field `x-version`.
    fn load_images(&self, folder: &Path) -> Result<()> {
        for archive in ["portolan.tar", "echo.tar"] {
            self.control_plane.load_image(&folder.join(archive))?;
        }
        let own = tempfile::tempdir()?;
        for version in ["v1", "v2"] {
            let image = Image::echo(folder)?.tagged(&format!("portolan-echo:{version}"));
            let archive = own.path().join(format!("{version}.tar"));
            image.with_env("ECHO_VERSION", version).write(&archive)?;
            self.control_plane.load_image(&archive)?;
        }
        Ok(())
    }

    /// Deploys Portolan from `deploy/overlays/nodeport` by an overlay of its own, and returns when its rollout is done.
    /// What is deployed already stays: it can be called again to bring back what a step took away.
    ///
    /// # Errors
    /// When the API server refuses a manifest, or Portolan does not become ready.
    pub(crate) fn deploy(&self) -> Result<()> {
        let overlay = tempfile::tempdir()?;
        let deploy = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"))?;
        let base = relative(&fs::canonicalize(overlay.path())?, &deploy.join("overlays/nodeport"));
        let kustomization = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\n\
             kind: Kustomization\n\
             resources: [{}]\n\
             images: [{{ name: portolan, newName: portolan, newTag: dev }}]\n",
            base.display()
        );
        fs::write(overlay.path().join("kustomization.yaml"), kustomization)?;
        let path = overlay.path().to_str().context("the temporary folder has a name in UTF-8")?;
        self.control_plane.kubectl(&["apply", "-k", path])?;
        self.wait_for_rollout("portolan")
    }

    /// What started it all: to kill and restart its parts.
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Runs `kubectl` in the namespace [`NAMESPACE`] and returns its output.
    ///
    /// # Errors
    /// When kubectl fails; what it said is in the message.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        self.control_plane.kubectl(&[&[namespace.as_str()], arguments].concat())
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], arguments].concat())?;
        serde_json::from_str(&text).context("kubectl printed something that is not JSON")
    }

    /// A command of kubectl in [`NAMESPACE`], for what runs beside a step.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.control_plane.command(self.control_plane.kubectl_program());
        command.arg(format!("--namespace={NAMESPACE}")).args(arguments);
        command
    }

    /// Returns when the Deployment's rollout is done.
    ///
    /// # Errors
    /// When it is not done within four minutes.
    pub(crate) fn wait_for_rollout(&self, deployment: &str) -> Result<()> {
        self.kubectl(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout=240s"])?;
        Ok(())
    }

    /// The address of a Service inside the cluster, which kube-proxy serves.
    ///
    /// # Errors
    /// When there is no such Service or it has no address.
    pub(crate) fn cluster_ip(&self, service: &str) -> Result<Ipv4Addr> {
        let object = self.json(&["service", service])?;
        let address = object["spec"]["clusterIP"].as_str().unwrap_or_default();
        address.parse().with_context(|| format!("the Service {service} has the cluster IP {address:?}"))
    }
}

/// Portolan's edge listener, as callers from outside reach it.
pub(crate) fn node_port() -> SocketAddr {
    SocketAddr::from((NODE, 30080))
}

/// The folder that the runner filled with `cargo xtask image`.
#[allow(clippy::disallowed_methods, reason = "the test runner speaks by it; it is no setting of the gateway")]
fn images() -> Result<PathBuf> {
    let folder = std::env::var_os("PORTOLAN_IMAGES");
    folder.map(PathBuf::from).context("PORTOLAN_IMAGES is not set: run this by `cargo xtask test --only e2e`")
}

/// The way from one absolute folder to another: kustomize takes no absolute ones.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let up = from.components().skip(1).map(|_| "..");
    up.collect::<PathBuf>().join(to.strip_prefix("/").unwrap_or(to))
}
