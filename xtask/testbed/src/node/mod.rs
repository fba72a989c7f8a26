//! The real node beside the control plane: containerd, kubelet, kube-proxy, the scheduler and cluster DNS.
//!
//! ```text
//! network namespace    shared with the control plane; pods have their own behind a bridge in it
//! mount namespace      mounts.rs: kubelet and containerd see folders of their own at their usual paths, so that they can
//!                      stand beside others of their kind, and every mount goes with the namespace
//! cgroup               cgroups.rs: /NAME in each hierarchy; a second kubelet with the same root would kill our pods
//! ```
//!
//! Container processes outlive what started them. They are found by the cgroup and by the mount namespace: `traces.rs`.

mod cgroups;
mod containerd;
mod dns;
mod kubelet;
mod mounts;
mod services;
mod traces;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::mounts::MountNamespace;
pub(crate) use self::traces::{remove as remove_traces, remove_cgroups};
use crate::control_plane::ControlPlane;
use crate::daemon::Daemon;
use crate::programs::NodePrograms;

/// The name of the node.
const NAME: &str = "node1";

/// The programs that `PATH` must hold, and the Debian package of each.
const DEBIAN_PROGRAMS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Where Debian's package containernetworking-plugins has them.
const NETWORK_PLUGINS: &str = "/usr/lib/cni";

/// What of a cluster is the node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Also the name of its network namespace and of its cgroup.
    name: String,
    programs: NodePrograms,
    /// Its configuration files and the logs of its pods.
    folder: PathBuf,
    containerd: Daemon,
    scheduler: Daemon,
    kubelet: Daemon,
    proxy: Daemon,
}

impl ControlPlane {
    /// Whether pods run: [`Options::node`](crate::Options::node) was set.
    pub fn has_node(&self) -> bool {
        self.node().is_ok()
    }

    /// Brings an image archive (OCI layout or `docker save`) onto the node.
    ///
    /// # Errors
    /// Without a node, and when containerd refuses the archive.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        self.node()?.load_image(archive)
    }

    /// The process id, on this machine, of process 1 of a running container. It does not ask the API server.
    ///
    /// # Errors
    /// Without a node, and when no such container runs.
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<i32> {
        self.node()?.container_pid(namespace, pod, container)
    }

    /// Kills the kubelet and returns when it is gone. The pods run on.
    pub fn kill_kubelet(&self) {
        if let Ok(node) = self.node() {
            node.kubelet.stop();
        }
    }

    /// Starts the killed kubelet again and returns when it answers the API server, which must be there.
    ///
    /// # Errors
    /// Without a node, and when it does not answer within three minutes.
    pub fn restart_kubelet(&self) -> Result<()> {
        self.node()?.kubelet.start()?;
        self.wait_for_kubelet()
    }

    pub(crate) fn wait_for_kubelet(&self) -> Result<()> {
        let health = format!("/api/v1/nodes/{NAME}/proxy/healthz");
        self.wait_for("the kubelet", || self.kubectl(&["get", "--raw", &health]))
    }

    /// Until pods can run and resolve names.
    pub(crate) fn wait_for_node(&self) -> Result<()> {
        self.wait_for("the node", || {
            let node = format!("node/{NAME}");
            self.kubectl(&["wait", &node, "--for=condition=Ready", "--timeout=1s"])
        })?;
        self.wait_for("the cluster's DNS", || {
            let rollout = ["rollout", "status", "deployment/coredns", "--namespace=kube-system"];
            self.kubectl(&[&rollout[..], &["--timeout=5s"]].concat())
        })
    }
}

impl Node {
    /// Describes the node of the cluster whose folder this is; `daemon` makes one of the cluster's background programs.
    pub(crate) fn describe(
        name: &str,
        programs: NodePrograms,
        cluster: &Path,
        daemon: impl Fn(&str, &Path, Vec<String>) -> Daemon,
    ) -> Node {
        let folder = cluster.join("node");
        let mounts = MountNamespace::of(&folder).file();
        let isolated = |daemon: Daemon| Daemon { mounts: Some(mounts.clone()), ..daemon };
        let kubeconfig = cluster.join("kubeconfig");
        Node {
            name: name.to_owned(),
            containerd: isolated(daemon("containerd", "containerd".as_ref(), containerd::arguments(&folder))),
            kubelet: isolated(daemon("kubelet", &programs.kubelet, kubelet::arguments(&folder, &kubeconfig))),
            scheduler: daemon(
                "kube-scheduler",
                &programs.kube_scheduler,
                services::scheduler_arguments(&kubeconfig),
            ),
            proxy: daemon("kube-proxy", &programs.kube_proxy, services::proxy_arguments(&kubeconfig)),
            programs,
            folder,
        }
    }

    /// In the order in which they are started.
    pub(crate) fn daemons(&self) -> [&Daemon; 4] {
        [&self.containerd, &self.scheduler, &self.kubelet, &self.proxy]
    }

    /// kube-proxy.
    pub(crate) fn kube_proxy(&self) -> &Daemon {
        &self.proxy
    }

    /// The scheduler.
    pub(crate) fn scheduler(&self) -> &Daemon {
        &self.scheduler
    }

    /// Makes what the node stands on and starts its container runtime; no API server is needed for it.
    pub(crate) fn start_runtime(&self, pki: &Path) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        containerd::write_configuration(&self.folder)?;
        kubelet::write_configuration(&self.folder, &self.name, pki)?;
        cgroups::create(&self.name)?;
        MountNamespace::of(&self.folder).create().context("cannot make the node's mount namespace")?;
        self.containerd.start()
    }

    /// Loads the images that every cluster needs; meanwhile the API server starts.
    pub(crate) fn load_own_images(&self) -> Result<()> {
        self.wait_for_containerd()?;
        self.load_program("pause", containerd::PAUSE_IMAGE, &self.programs.pause)?;
        self.load_program("coredns", dns::IMAGE, &self.programs.coredns)
    }

    /// Starts what follows the API server.
    pub(crate) fn start_pods(&self) -> Result<()> {
        [&self.scheduler, &self.kubelet, &self.proxy].into_iter().try_for_each(Daemon::start)
    }

    /// The objects of the cluster's DNS.
    pub(crate) fn dns_objects() -> &'static str {
        dns::OBJECTS
    }

    /// Ends what outlives the daemons, which must have ended: containers, mounts and cgroups.
    pub(crate) fn remove_traces(&self) -> Result<()> {
        traces::remove(&self.name, &self.folder)
    }
}

/// Says what is missing on this machine for a node, in words for the person who has to install it.
///
/// # Errors
/// When something is missing, or this is not Linux.
pub fn check_node_requirements() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("a node needs Linux: its containers are Linux processes");
    }
    if !crate::is_root() {
        bail!("a node needs root, for containers and namespaces: run the command as root");
    }
    let missing = missing_packages();
    if !missing.is_empty() {
        bail!("a node needs programs that are missing here; install {}", missing.join(", "));
    }
    Ok(())
}

/// The Debian packages whose programs a node needs and this machine lacks.
pub fn missing_packages() -> Vec<&'static str> {
    let programs = DEBIAN_PROGRAMS.into_iter().filter(|(program, _)| !is_on_path(program));
    let mut packages: Vec<_> = programs.map(|(_, package)| package).collect();
    if !Path::new(NETWORK_PLUGINS).join("bridge").exists() {
        packages.push("containernetworking-plugins");
    }
    packages.dedup();
    packages
}

#[allow(
    clippy::disallowed_methods,
    reason = "a development tool with no settings.rs: the PATH is the user's"
)]
fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
