//! The control plane's programs, built from Go modules pinned in `xtask/etcd` and `xtask/kubernetes`.
//!
//! The versions stand only in those `go.mod` files. A program is built into a folder beside its final place and
//! renamed, so an interrupted build leaves nothing that looks finished, and a lock keeps two builds apart.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cache;

/// Where each program of the control plane is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the programs' own")]
pub struct Programs {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
    pub kube_controller_manager: PathBuf,
    pub kubectl: PathBuf,
}

impl Programs {
    /// The programs from the cache; those that are missing are built first (minutes, once per version).
    ///
    /// # Errors
    /// When Go is missing, a module cannot be downloaded, a program does not build or the cache cannot be written.
    pub fn build() -> Result<Programs> {
        let cache = cache::cache_folder()?.join("control-plane");
        let etcd = ETCD.build(&cache)?;
        let kubernetes = KUBERNETES.build(&cache)?;
        Ok(Programs {
            etcd: etcd.join("etcd"),
            kube_apiserver: kubernetes.join("kube-apiserver"),
            kube_controller_manager: kubernetes.join("kube-controller-manager"),
            kubectl: kubernetes.join("kubectl"),
        })
    }
}

/// One pinned Go module and the programs built from it.
struct Module {
    name: &'static str,
    /// The module whose required version is the version of all its programs.
    path: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    tools: &'static str,
    /// Program name and package.
    programs: &'static [(&'static str, &'static str)],
    /// Package of the version variables that the linker fills in.
    version_package: Option<&'static str>,
}

const ETCD: Module = Module {
    name: "etcd",
    path: "go.etcd.io/etcd/server/v3",
    go_mod: include_str!("../../etcd/go.mod"),
    go_sum: include_str!("../../etcd/go.sum"),
    tools: include_str!("../../etcd/tools.go"),
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    version_package: None,
};

const KUBERNETES: Module = Module {
    name: "kubernetes",
    path: "k8s.io/kubernetes",
    go_mod: include_str!("../../kubernetes/go.mod"),
    go_sum: include_str!("../../kubernetes/go.sum"),
    tools: include_str!("../../kubernetes/tools.go"),
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    // Clients and feature gates read the stamp; unset it says v0.0.0.
    version_package: Some("k8s.io/component-base/version"),
};

impl Module {
    /// Returns the folder that holds all programs of this module.
    fn build(&self, cache: &Path) -> Result<PathBuf> {
        let version = self.version()?;
        let folder = cache.join(format!("{}-{version}", self.name));
        if self.is_built(&folder) {
            return Ok(folder);
        }
        let _lock = cache::lock(cache)?;
        if !self.is_built(&folder) {
            self.compile(version, &folder)
                .with_context(|| format!("cannot build {} {version}", self.name))?;
        }
        Ok(folder)
    }

    fn is_built(&self, folder: &Path) -> bool {
        self.programs.iter().all(|(program, _)| folder.join(program).is_file())
    }

    fn version(&self) -> Result<&'static str> {
        self.go_mod
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(self.path))
            .find_map(|rest| rest.strip_prefix(" v"))
            .with_context(|| format!("xtask/{}/go.mod requires no version of {}", self.name, self.path))
    }

    fn compile(&self, version: &str, folder: &Path) -> Result<()> {
        require_go()?;
        let names: Vec<_> = self.programs.iter().map(|(program, _)| *program).collect();
        say(&format!("building {} {version} into {}, once", names.join(", "), folder.display()));
        // A fixed name under the lock: what an interrupted build left there goes now.
        let work = folder.join("building");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        for (file, content) in [("go.mod", self.go_mod), ("go.sum", self.go_sum), ("tools.go", self.tools)] {
            fs::write(work.join(file), content)?;
        }
        let bin = work.join("bin");
        for (program, package) in self.programs {
            let status = go()
                .current_dir(&work)
                .args(["build", "-trimpath", "-ldflags", &self.linker_flags(version), "-o"])
                .arg(bin.join(program))
                .arg(package)
                .status()?;
            if !status.success() {
                bail!("`go build {package}` failed: {status}; its messages stand above");
            }
            fs::rename(bin.join(program), folder.join(program))?;
        }
        fs::remove_dir_all(&work)?;
        Ok(())
    }

    fn linker_flags(&self, version: &str) -> String {
        let Some(package) = self.version_package else { return "-s -w".to_owned() };
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!(
            "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
        )
    }
}

/// `go` in the pinned mode, whatever the user's own settings are.
fn go() -> Command {
    let mut command = Command::new("go");
    command
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=readonly -buildvcs=false"), ("GOWORK", "off")])
        .stdin(Stdio::null());
    command
}

fn require_go() -> Result<()> {
    match go().arg("version").stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`go version` failed: {status}; repair the Go installation"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("`go` is not on the PATH: install Go 1.26 or newer, the control plane is built with it")
        }
        Err(error) => Err(error).context("cannot run `go version`"),
    }
}

/// A line of progress for the person who waits, not captured by the test harness.
pub(crate) fn say(line: &str) {
    // Nobody may be listening; that is no reason to stop.
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_module_files() {
        for module in [ETCD, KUBERNETES] {
            let version = module.version().unwrap();
            assert_eq!(version.split('.').count(), 3, "{version}");
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
            for (program, package) in module.programs {
                assert!(
                    module.tools.contains(&format!("\"{package}\"")),
                    "{program} is not pinned in tools.go"
                );
            }
        }
    }

    #[test]
    fn the_linker_stamps_the_version() {
        let flags = KUBERNETES.linker_flags("1.37.2");
        assert!(
            flags.contains("version.gitVersion=v1.37.2") && flags.contains("version.gitMinor=37"),
            "{flags}"
        );
    }
}
