//! `cargo xtask cluster`: the tests' control plane on a developer's desk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Result, bail};
use clap::Subcommand;
use portolan_testbed::{
    ControlPlane, Netns, NodePrograms, Options, Programs, cache_folder, is_root, remove_undescribed, sweep,
};

use crate::surroundings::Extent;
use crate::tools;

/// The network namespace of the developer's control plane.
const NETNS: &str = "portolan";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build what is missing and start it: as root in a network namespace, else on loopback
    Up {
        /// Leave kube-controller-manager out: then nothing makes pods of Deployments or EndpointSlices of pods
        #[arg(long)]
        without_controllers: bool,
        /// With a node on which pods run, and cluster DNS; needs root on Debian, what is missing is installed
        #[arg(long, conflicts_with = "without_controllers")]
        node: bool,
    },
    /// Only build what is missing in the cache
    Build {
        /// What a node needs too
        #[arg(long)]
        node: bool,
    },
    /// Bring an image archive onto the node
    Load {
        /// OCI layout or `docker save`, such as `cargo xtask image` writes
        image: PathBuf,
    },
    /// Run a command where the control plane's addresses exist, kubectl on its PATH and KUBECONFIG set
    Exec {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Say whether it runs
    Status,
    /// End it and remove every trace, also of interrupted test runs
    Down,
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { without_controllers, node } => up(match (node, without_controllers) {
            (true, _) => Extent::Node,
            (false, false) => Extent::Controllers,
            (false, true) => Extent::ApiServer,
        }),
        Command::Build { node } => build(node),
        Command::Load { image } => load(&image),
        Command::Exec { command } => exec(&command),
        Command::Status => status(),
        Command::Down => down(),
    }
}

fn up(extent: Extent) -> Result<()> {
    let node = extent == Extent::Node;
    if let Ok(running) = attach() {
        if node && !running.has_node() {
            bail!("it runs already, without a node: end it first by `cargo xtask cluster down`");
        }
        println!("It runs already.");
        describe(&running);
        return Ok(());
    }
    if node {
        tools::node_tools()?;
    }
    down()?;
    build(node)?;
    let netns = match (is_root(), node) {
        (true, true) => Some(Netns::create_for_node(NETNS)?),
        (true, false) => Some(Netns::create(NETNS)?),
        (false, _) => None,
    };
    let control_plane = ControlPlane::start(&Options {
        netns: netns.as_ref().map(|netns| netns.name().to_owned()),
        controllers: extent != Extent::ApiServer,
        node,
        folder: Some(folder()?),
        ends_with_starter: false,
    })?;
    describe(&control_plane);
    control_plane.detach();
    if let Some(netns) = netns {
        netns.keep();
    }
    Ok(())
}

fn build(node: bool) -> Result<()> {
    Programs::build()?;
    if node {
        NodePrograms::build()?;
    }
    Ok(())
}

fn load(image: &Path) -> Result<()> {
    attach()?.load_image(image)?;
    println!("{} is on the node.", image.display());
    Ok(())
}

fn describe(control_plane: &ControlPlane) {
    println!("API server   {}", control_plane.url());
    println!("kubeconfig   {}", control_plane.kubeconfig().display());
    println!("logs         {}/*.log", control_plane.folder().display());
    if let Some(netns) = control_plane.netns() {
        println!("network      namespace {netns}: 10.0.0.0/8 is its own, nothing leaves it");
    }
    if control_plane.has_node() {
        println!("node         node1, 10.250.0.1 (NodePorts), cluster DNS 10.96.0.10");
        println!("pods' logs   {}/node/pods", control_plane.folder().display());
    }
    println!();
    if control_plane.has_node() {
        println!("  cargo xtask cluster load IMAGE.tar");
    }
    println!("  cargo xtask cluster exec kubectl get services --all-namespaces");
    println!("  cargo xtask cluster exec bash      a shell inside");
    println!("  cargo xtask cluster down");
}

fn exec(command: &[OsString]) -> Result<()> {
    let control_plane = attach()?;
    let mut path = OsString::from(control_plane.kubectl_program().parent().unwrap_or("".as_ref()));
    if let Some(rest) = inherited_path() {
        path.push(":");
        path.push(rest);
    }
    // `env` finds the program on the new PATH.
    let mut inside = control_plane.command("env");
    let mut assignment = OsString::from("PATH=");
    assignment.push(path);
    inside.arg(assignment).args(command).stdin(std::process::Stdio::inherit());
    pass_on(inside.status()?)
}

#[allow(clippy::disallowed_methods, reason = "the PATH is handed on, it is no setting")]
fn inherited_path() -> Option<OsString> {
    std::env::var_os("PATH")
}

#[allow(clippy::exit, reason = "the exit code of the command run inside is this command's own")]
fn pass_on(status: ExitStatus) -> Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
        None => bail!("the command was ended by a signal: {status}"),
    }
}

fn status() -> Result<()> {
    let control_plane = attach()?;
    control_plane.kubectl(&["get", "--raw", "/readyz"])?;
    println!("It runs and is ready.");
    describe(&control_plane);
    Ok(())
}

fn down() -> Result<()> {
    let folder = folder()?;
    leave_anothers(&folder)?;
    match ControlPlane::attach(&folder) {
        Ok(control_plane) if control_plane.netns().is_some() && !is_root() => {
            bail!("it was started as root, in a network namespace: end it as root")
        }
        Ok(control_plane) => {
            control_plane.stop();
            if is_root() {
                Netns::remove(NETNS)?;
            }
        }
        Err(_) => remove_undescribed(NETNS, &folder)?,
    }
    sweep()
}

/// The namespace may hold the control plane of another cache folder, which is not ours to end.
fn leave_anothers(ours: &Path) -> Result<()> {
    let Some(theirs) = ControlPlane::folder_in(NETNS)?.filter(|folder| folder != ours) else { return Ok(()) };
    let cache = theirs.parent().unwrap_or(&theirs).display();
    bail!(
        "the network namespace {NETNS} holds another control plane, that of {}: end it first by \
         `PORTOLAN_CACHE={cache} cargo xtask cluster down`, or use it with that variable",
        theirs.display()
    )
}

/// The running control plane.
fn attach() -> Result<ControlPlane> {
    let Ok(control_plane) = ControlPlane::attach(&folder()?) else {
        bail!("no control plane runs: start one by `cargo xtask cluster up`")
    };
    control_plane.check()?;
    Ok(control_plane)
}

fn folder() -> Result<PathBuf> {
    Ok(cache_folder()?.join("cluster"))
}
