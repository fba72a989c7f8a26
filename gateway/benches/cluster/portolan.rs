//! The real binary, logged in with the rights that `deploy/` gives it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portolan_loadtest::load::{Load, Pace};
use portolan_testbed::ControlPlane;

use super::NAMESPACE;

/// The namespace of the gateway itself.
const OWN: &str = "service-discovery";
/// The address on which the gateway listens.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 250, 1, 1);

/// A running gateway. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Portolan {
    child: Child,
}

impl Portolan {
    /// Creates the namespaces and rights of `deploy/`.
    pub(crate) fn prepare(control_plane: &ControlPlane) -> Result<()> {
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
        control_plane.apply(&namespace)?;
        let base = control_plane.kubectl(&["kustomize", &format!("{deploy}/base")])?;
        // Only who it is and what it may: no controller runs here that could do something with the rest.
        let rights = base
            .split("\n---\n")
            .filter(|object| {
                ["Namespace", "ServiceAccount", "Role", "RoleBinding", "ConfigMap"]
                    .iter()
                    .any(|kind| object.lines().any(|line| line == format!("kind: {kind}")))
            })
            .collect::<Vec<_>>()
            .join("\n---\n");
        control_plane.apply(&rights)?;
        control_plane.kubectl(&[
            "apply",
            "--namespace",
            NAMESPACE,
            "-k",
            &format!("{deploy}/namespace-access"),
        ])?;
        Ok(())
    }

    /// Starts it with two workers on the Services of the namespace `shop`, and returns when it is ready.
    pub(crate) fn start(control_plane: &ControlPlane) -> Result<Self> {
        Self::start_with(&Self::kubeconfig(control_plane)?, &[])
    }

    /// The kubeconfig of its ServiceAccount, which the API server makes.
    pub(crate) fn kubeconfig(control_plane: &ControlPlane) -> Result<PathBuf> {
        control_plane.service_account_kubeconfig(OWN, "portolan")
    }

    /// Starts it so with more flags. Needs no API server.
    pub(crate) fn start_with(kubeconfig: &Path, more: &[&str]) -> Result<Self> {
        let status = Self::status();
        let child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["run", "--workers", "2", "--namespaces", NAMESPACE, "--default-namespace", NAMESPACE])
            .args(["--listen", &Self::edge().to_string(), "--listen-cluster", &format!("{ADDRESS}:8081")])
            .args(["--status", &status.to_string(), "--admin", "127.0.0.1:9901"])
            .args(["--access-log", "off", "--log", "warn"])
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .spawn()?;
        let mut portolan = Self { child };
        portolan.wait_until_ready(status)?;
        Ok(portolan)
    }

    /// Where its readiness stands.
    pub(crate) fn status() -> SocketAddr {
        SocketAddr::from((ADDRESS, 9902))
    }

    /// Where callers from outside ask.
    pub(crate) fn edge() -> SocketAddr {
        SocketAddr::from((ADDRESS, 8080))
    }

    /// Nobody tells when another process becomes ready: it is asked until it is.
    fn wait_until_ready(&mut self, status: SocketAddr) -> Result<()> {
        for _ in 0..600 {
            if let Some(exit) = self.child.try_wait()? {
                bail!("the gateway has ended by itself: {exit}");
            }
            let ask =
                Load { pace: Pace::Closed, connections: 1, count: Some(1), ..Load::to(status, "/readyz") };
            if ask.start()?.wait().context("asking whether the gateway is ready")?.failed == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the gateway was not ready after a minute")
    }
}

impl Drop for Portolan {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_ok();
        let _reaped = self.child.wait().is_ok();
    }
}
