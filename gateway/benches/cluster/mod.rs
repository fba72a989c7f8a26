//! A gateway on a real API server, for what is measured there: the real binary, logged in with the rights of
//! `deploy/`, upstreams as processes on addresses of the namespace's `lo`, and a client that writes objects as the
//! administrator.
//!
//! Everything here runs inside the network namespace of the control plane; `cargo xtask` starts it there.

mod objects;
mod pod;
mod portolan;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use portolan_discovery::kube::{ConnectOptions, Connected, connect};
use portolan_testbed::ControlPlane;

pub(crate) use objects::{Entry, NAMESPACE};
pub(crate) use pod::Pod;
pub(crate) use portolan::Portolan;

/// The control plane that this process was started beside; nothing, with the reason told, where there is none. On CI
/// that is an error.
#[allow(clippy::print_stderr, reason = "for the person at the terminal")]
#[allow(
    clippy::disallowed_methods,
    reason = "CI is a fact about the surroundings, no setting of the gateway"
)]
pub(crate) fn control_plane() -> Result<Option<ControlPlane>> {
    match ControlPlane::shared() {
        Ok(control_plane) => Ok(Some(control_plane)),
        Err(error) if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) => {
            Err(error.context("on CI the part on a real API server may not be left out"))
        }
        Err(error) => {
            eprintln!("the part on a real API server is left out: {error:#}");
            Ok(None)
        }
    }
}

/// Writes objects as the administrator.
#[derive(Debug)]
pub(crate) struct Api(Connected);

impl Api {
    pub(crate) async fn connect(control_plane: &ControlPlane) -> Result<Self> {
        let options = ConnectOptions { kubeconfig: Some(control_plane.kubeconfig()), context: None };
        Ok(Self(connect(&options).await?))
    }

    /// Creates an object; returns when the API server has acknowledged it.
    pub(crate) async fn create(&self, collection: &str, object: &serde_json::Value) -> Result<()> {
        self.send("POST", collection, "application/json", object).await
    }

    /// Changes an object by a merge patch; returns when the API server has acknowledged it.
    pub(crate) async fn patch(&self, path: &str, patch: &serde_json::Value) -> Result<()> {
        self.send("PATCH", path, "application/merge-patch+json", patch).await
    }

    async fn send(&self, method: &str, path: &str, kind: &str, object: &serde_json::Value) -> Result<()> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(serde_json::to_vec(object)?)?;
        self.0.client.request_text(request).await.with_context(|| format!("{method} {path}"))?;
        Ok(())
    }
}

/// The program `name` of this workspace, beside the one that cargo built for this bench or test.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_portolan")).with_file_name(name);
    path.is_file().then_some(()).with_context(|| {
        format!(
            "{} is missing: build it with `cargo build --package {name}` in the same profile",
            path.display()
        )
    })?;
    Ok(path)
}
