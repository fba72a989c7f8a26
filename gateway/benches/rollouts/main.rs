//! Whether a request fails while everything behind the gateway is replaced, and while the API server is away.
//!
//! `cargo xtask bench rollouts [--json]`: 1,000 requests a second in the open loop, on 64 kept connections and a fifth
//! on new ones, a tenth of them POST, through the real binary on a real API server, while
//!
//! 1. a Service of six endpoints is replaced whole, one endpoint after the other, 50 times; each old upstream is a
//!    process that exits 100 ms after its slice marks it as terminating;
//! 2. the API server is killed for two minutes, and one upstream with it half way.
//!
//! The test `rollouts` does the same in a shorter time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

#[allow(dead_code, reason = "shared: each user needs its own part of it")]
#[path = "../cluster/mod.rs"]
mod cluster;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

/// Counts the requests that fail while upstreams are replaced and while the API server is away.
#[derive(Debug, Parser)]
struct Options {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    /// How often all six upstreams are replaced.
    #[arg(long, default_value_t = 50)]
    rollouts: usize,
    /// How long the API server is away.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    outage: Duration,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let Some(control_plane) = cluster::control_plane()? else { return Ok(ExitCode::FAILURE) };
    let outcome = run::Plan { rollouts: options.rollouts, outage: options.outage }.run(&control_plane)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print!("{outcome}");
    }
    let faults = outcome.faults();
    for fault in &faults {
        eprintln!("missed: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
