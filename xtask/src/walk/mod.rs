//! `cargo xtask walk`: the life of an application on a real node, with the full numbers, and the evidence of it.

mod evidence;
mod ground;
mod traces;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use portolan_testbed::{Figures, is_root, sweep};

pub(crate) use self::ground::Ground;
use crate::test::{Counts, run_and_count};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Walk only this step (repeatable, or with commas); its part of the evidence alone is written anew
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=11))]
    step: Vec<u32>,
    /// The numbers of `cargo xtask test`, to try it: no evidence is written
    #[arg(long)]
    short: bool,
    /// Print the figures as JSON too, one line a step
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !is_root() {
        bail!("the walk needs root, for a node with containers and namespaces: run it as root");
    }
    sweep()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("figures.jsonl");
    let (counts, ended) = walk(arguments, &file)?;
    let figures = Figures::read(&file)?;
    println!("\n===== the walk");
    for step in &figures {
        println!("{}", step.line());
    }
    if arguments.json {
        for step in &figures {
            println!("{}", serde_json::to_string(step)?);
        }
    }
    if !arguments.short && !figures.is_empty() {
        evidence::write(&figures)?;
    }
    ended?;
    println!("\n{} steps passed, {} failed", counts.passed, counts.failed);
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How the steps went, and whether the node ended as it should.
fn walk(arguments: &Arguments, figures: &Path) -> Result<(Counts, Result<()>)> {
    let ground = Ground::prepare()?;
    let names: Vec<_> = arguments.step.iter().map(|step| format!("step_{step:02}")).collect();
    let mut steps = ground.steps(&names)?;
    steps.env("PORTOLAN_WALK_FIGURES", figures);
    if !arguments.short {
        steps.env("PORTOLAN_WALK", "full");
    }
    let counts = run_and_count(&mut steps)?.counts;
    Ok((counts, ground.end()))
}
