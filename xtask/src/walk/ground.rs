//! What the steps of gateway/tests/e2e stand on: images, the compiled steps, a node.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use portolan_testbed::{NodePrograms, Programs};

use super::traces::Before;
use crate::image;
use crate::surroundings::{Extent, Surroundings};
use crate::tools::{self, cargo};

/// The variable that names the folder of the images. Set by the caller, nothing is built.
const IMAGES: &str = "PORTOLAN_IMAGES";

/// A node, and what is to run on it. Gone with the value; [`Ground::end`] looks whether it is.
pub(crate) struct Ground {
    before: Before,
    surroundings: Surroundings,
    images: PathBuf,
}

impl Ground {
    /// Installs and builds what is missing, then starts the node: nothing compiles while something is measured. Needs
    /// root; only from the main thread.
    pub(crate) fn prepare() -> Result<Ground> {
        tools::network_tools()?;
        tools::node_tools()?;
        Programs::build()?;
        NodePrograms::build()?;
        let images = images()?;
        tools::run(cargo().args(["test", "--workspace", "--no-run"]))?;
        let before = Before::look()?;
        Ok(Ground { before, surroundings: Surroundings::start("e2e", Extent::Node)?, images })
    }

    /// Ends the node. What it left behind is an error.
    pub(crate) fn end(self) -> Result<()> {
        let Ground { before, surroundings, .. } = self;
        drop(surroundings);
        before.check()
    }

    /// The command that runs the steps one after the other; `rest` is for their test binary, such as a part of a name.
    pub(crate) fn steps(&self, rest: &[String]) -> Result<Command> {
        let mut test = cargo();
        test.args(["test", "--workspace", "--test", "e2e", "--"]);
        // Their lines are for the terminal, also when all is well.
        test.args(["--ignored", "--test-threads=1", "--nocapture"]).args(rest);
        test.env(IMAGES, &self.images);
        self.surroundings.of(&mut test)?;
        Ok(test)
    }
}

#[allow(clippy::disallowed_methods, reason = "a development tool with no settings.rs")]
fn images() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(IMAGES) {
        return Ok(std::path::absolute(folder)?);
    }
    let folder = image::target_folder()?.join("images");
    image::write(&folder)?;
    Ok(folder)
}
