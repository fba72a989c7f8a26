//! `cargo xtask bench`: the measurements, on a control plane of their own where they need one.

use std::ffi::OsString;

use anyhow::Result;
use clap::ValueEnum;
use portolan_testbed::{is_root, sweep};

use crate::surroundings::{Extent, Surroundings};
use crate::tools::{self, cargo};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to measure
    bench: Bench,
    /// What the bench itself takes: --json and others, see --help behind its name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// How long a change takes until it can be used, and what holding everything costs
    Convergence,
    /// Whether a request fails while upstreams are replaced and while the API server is away
    Rollouts,
    /// How many instructions the hot paths take, against the baseline: --bless takes a new one, parts of names choose
    /// cases
    Instructions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.bench {
        Bench::Convergence => on_control_plane("convergence", &arguments.rest),
        Bench::Rollouts => on_control_plane("rollouts", &arguments.rest),
        Bench::Instructions => instructions(&arguments.rest),
    }
}

/// Counts instructions under valgrind; fails when a case takes more than it may.
pub(crate) fn instructions(rest: &[OsString]) -> Result<()> {
    tools::valgrind()?;
    let bench = ["bench", "--quiet", "--package", "portolan-proxy", "--bench", "instructions"];
    tools::run(cargo().args(bench).arg("--").args(rest))
}

/// Builds everything first, so that nothing compiles while something is measured.
fn on_control_plane(name: &str, rest: &[OsString]) -> Result<()> {
    let bench = ["bench", "--quiet", "--package", "portolan", "--bench", name];
    // The upstreams are processes of this program.
    tools::run(cargo().args(["build", "--quiet", "--release", "--package", "portolan-loadtest"]))?;
    tools::run(cargo().args(bench).arg("--no-run"))?;
    let mut measure = cargo();
    measure.args(bench).arg("--").args(rest);
    if !is_root() {
        // The bench says what it leaves out, and fails where nothing may be left out.
        return tools::run(&mut measure);
    }
    tools::network_tools()?;
    sweep()?;
    let surroundings = Surroundings::start(name, Extent::ApiServer)?;
    tools::run(surroundings.of(&mut measure)?)
}
