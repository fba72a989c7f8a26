//! The programs of the control plane and of the node, built from Go modules pinned in `xtask/etcd`, `xtask/kubernetes`
//! and `xtask/coredns`.
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

/// Where each program of the node is that Debian does not have.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the programs' own")]
pub struct NodePrograms {
    pub kubelet: PathBuf,
    pub kube_proxy: PathBuf,
    pub kube_scheduler: PathBuf,
    pub coredns: PathBuf,
    pub pause: PathBuf,
}

impl Programs {
    /// The programs from the cache; those that are missing are built first (minutes, once per version).
    ///
    /// # Errors
    /// When Go is missing, a module cannot be downloaded, a program does not build or the cache cannot be written.
    pub fn build() -> Result<Programs> {
        let cache = cache()?;
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

impl NodePrograms {
    /// The programs from the cache; those that are missing are built first (minutes, once per version).
    ///
    /// # Errors
    /// As [`Programs::build`].
    pub fn build() -> Result<NodePrograms> {
        let cache = cache()?;
        let kubernetes = KUBERNETES_NODE.build(&cache)?;
        Ok(NodePrograms {
            kubelet: kubernetes.join("kubelet"),
            kube_proxy: kubernetes.join("kube-proxy"),
            kube_scheduler: kubernetes.join("kube-scheduler"),
            coredns: COREDNS.build(&cache)?.join("coredns"),
            pause: PAUSE.build(&cache)?.join("pause"),
        })
    }
}

fn cache() -> Result<PathBuf> {
    Ok(cache::cache_folder()?.join("control-plane"))
}

/// One pinned Go module and the programs built from it.
struct Module {
    name: &'static str,
    version: Version,
    /// Name and content of each of its files.
    files: &'static [(&'static str, &'static str)],
    /// Program name and package.
    programs: &'static [(&'static str, &'static str)],
    /// Package of the version variables that the linker fills in.
    version_package: Option<&'static str>,
}

/// Where the version of a module's programs stands.
enum Version {
    /// The version of this module that go.mod, the first of the files, requires.
    Required(&'static str),
    /// Here: the program is our own. To be raised with every change of it.
    Own(&'static str),
}

const ETCD: Module = Module {
    name: "etcd",
    version: Version::Required("go.etcd.io/etcd/server/v3"),
    files: &[
        ("go.mod", include_str!("../../etcd/go.mod")),
        ("go.sum", include_str!("../../etcd/go.sum")),
        ("tools.go", include_str!("../../etcd/tools.go")),
    ],
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    version_package: None,
};

const KUBERNETES: Module = Module {
    name: "kubernetes",
    version: Version::Required("k8s.io/kubernetes"),
    files: &[
        ("go.mod", include_str!("../../kubernetes/go.mod")),
        ("go.sum", include_str!("../../kubernetes/go.sum")),
        ("tools.go", include_str!("../../kubernetes/tools.go")),
    ],
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    // Clients and feature gates read the stamp; unset it says v0.0.0.
    version_package: Some("k8s.io/component-base/version"),
};

const KUBERNETES_NODE: Module = Module {
    programs: &[
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ],
    ..KUBERNETES
};

const COREDNS: Module = Module {
    name: "coredns",
    version: Version::Required("github.com/coredns/coredns"),
    files: &[
        ("go.mod", include_str!("../../coredns/go.mod")),
        ("go.sum", include_str!("../../coredns/go.sum")),
        ("main.go", include_str!("../../coredns/main.go")),
    ],
    programs: &[("coredns", ".")],
    version_package: None,
};

const PAUSE: Module = Module {
    name: "pause",
    version: Version::Own("1.0.0"),
    files: &[
        ("go.mod", include_str!("../../pause/go.mod")),
        ("main.go", include_str!("../../pause/main.go")),
    ],
    programs: &[("pause", ".")],
    version_package: None,
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
        self.missing(folder).next().is_none()
    }

    fn missing(&self, folder: &Path) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.programs.iter().filter(move |(program, _)| !folder.join(program).is_file())
    }

    fn version(&self) -> Result<&'static str> {
        let path = match self.version {
            Version::Required(path) => path,
            Version::Own(version) => return Ok(version),
        };
        let (_, go_mod) = self.files.first().context("a module has a go.mod")?;
        go_mod
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(path))
            .find_map(|rest| rest.strip_prefix(" v"))
            .with_context(|| format!("xtask/{}/go.mod requires no version of {path}", self.name))
    }

    fn compile(&self, version: &str, folder: &Path) -> Result<()> {
        require_go()?;
        let missing: Vec<_> = self.missing(folder).collect();
        let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        say(&format!("building {} {version} into {}, once", names.join(", "), folder.display()));
        // A fixed name under the lock: what an interrupted build left there goes now.
        let work = folder.join("building");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        for (file, content) in self.files {
            fs::write(work.join(file), content)?;
        }
        let bin = work.join("bin");
        for (program, package) in missing {
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
        for module in [ETCD, KUBERNETES, KUBERNETES_NODE, COREDNS, PAUSE] {
            let version = module.version().unwrap();
            assert_eq!(version.split('.').count(), 3, "{version}");
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
            for (program, package) in module.programs {
                let tools = module.files.iter().find(|(name, _)| *name == "tools.go");
                let pinned = tools.is_none_or(|(_, content)| content.contains(&format!("\"{package}\"")));
                assert!(pinned, "{program} is not pinned in tools.go");
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
