//! A control plane, with or without a node, in a network namespace of its own, and programs that cargo runs inside.

use std::process::Command;

use anyhow::{Context, Result};
use portolan_testbed::{ControlPlane, Netns, Options, SHARED};

/// How much of a cluster there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// etcd and the API server
    ApiServer,
    /// The controllers too
    Controllers,
    /// A node too, on which pods run, and cluster DNS. [`crate::tools::node_tools`] comes first.
    Node,
}

/// A control plane for one test binary or bench; gone with the value. Needs root.
pub(crate) struct Surroundings {
    // First, so that its processes end before their namespace goes.
    control_plane: ControlPlane,
    netns: Netns,
}

impl Surroundings {
    /// Starts it; `label` tells it apart from others of this process. Only from the main thread: the programs end with
    /// the thread that starts them.
    pub(crate) fn start(label: &str, extent: Extent) -> Result<Surroundings> {
        let name = format!("portolan-run-{}-{label}", std::process::id());
        let node = extent == Extent::Node;
        let netns = if node { Netns::create_for_node(&name)? } else { Netns::create(&name)? };
        let control_plane = ControlPlane::start(&Options {
            netns: Some(netns.name().to_owned()),
            controllers: extent != Extent::ApiServer,
            node,
            folder: None,
            ends_with_starter: true,
        })?;
        Ok(Surroundings { control_plane, netns })
    }

    /// Lets a `cargo test` or `cargo bench` run what it built inside, and tells it where the control plane is. Cargo
    /// itself stays outside, where the network is.
    pub(crate) fn of<'a>(&self, cargo: &'a mut Command) -> Result<&'a mut Command> {
        let runner = format!("nsenter --net=/run/netns/{} --", self.netns.name());
        Ok(cargo.env(runner_variable()?, runner).env(SHARED, self.control_plane.folder()))
    }
}

/// The variable by which cargo learns through which program to run what it built.
fn runner_variable() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run `rustc -vV`")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}
