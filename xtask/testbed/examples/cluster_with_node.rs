//! A cluster with a node that lives as long as this program: `cargo run -p portolan-testbed --example cluster_with_node`.
//!
//! It prints the folder of the cluster, from which others attach to it, and ends with its standard input.

use std::io::{self, Read, Write};

use anyhow::Result;
use portolan_testbed::{ControlPlane, Netns, Options};

fn main() -> Result<()> {
    let netns = Netns::create_for_node(&format!("portolan-run-{}-example", std::process::id()))?;
    let cluster = ControlPlane::start(&Options {
        netns: Some(netns.name().to_owned()),
        node: true,
        ends_with_starter: true,
        ..Options::default()
    })?;
    writeln!(io::stdout(), "{}", cluster.folder().display())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // Before its namespace goes.
    drop(cluster);
    Ok(())
}
