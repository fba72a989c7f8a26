//! `cargo xtask walk`: the life of an application on a real node, with the full numbers, and the evidence of it.

mod evidence;
mod figures;
mod ground;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use portolan_testbed::{is_root, sweep};

use self::figures::Figures;
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
    let folder = Folder::create()?;
    let counts = walk(arguments, &folder.figures())?;
    let figures = Figures::read(&folder.figures())?;
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
    println!("\n{} steps passed, {} failed", counts.passed, counts.failed);
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The node ends with this function.
fn walk(arguments: &Arguments, figures: &std::path::Path) -> Result<Counts> {
    let ground = Ground::prepare()?;
    let names: Vec<_> = arguments.step.iter().map(|step| format!("step_{step:02}")).collect();
    let mut steps = ground.steps(&names)?;
    steps.env("PORTOLAN_WALK_FIGURES", figures);
    if !arguments.short {
        steps.env("PORTOLAN_WALK", "full");
    }
    run_and_count(&mut steps)
}

/// A folder for one run, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("portolan-walk-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    fn figures(&self) -> PathBuf {
        self.0.join("figures.jsonl")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0).is_ok();
    }
}
