//! The development commands: `cargo xtask --help`.
#![allow(clippy::print_stdout, reason = "a command line tool: its output is for the person at the terminal")]

mod bench;
mod cluster;
mod image;
mod surroundings;
mod test;
mod tools;
mod walk;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Portolan's development commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A Kubernetes control plane to play with
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Every check and every test
    Test(test::Arguments),
    /// The container images as archives, without a container engine
    Image(image::Arguments),
    /// Measurements, optimised
    Bench(bench::Arguments),
    /// The life of an application on a real node, with the full numbers; writes docs/evidence/rollouts.md
    Walk(walk::Arguments),
    /// Write the files that the code generates
    Generate,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Cluster(command) => cluster::run(command)?,
        Command::Test(arguments) => return test::run(&arguments),
        Command::Image(arguments) => image::run(&arguments)?,
        Command::Bench(arguments) => bench::run(&arguments)?,
        Command::Walk(arguments) => return walk::run(&arguments),
        Command::Generate => test::write_generated()?,
    }
    Ok(ExitCode::SUCCESS)
}
