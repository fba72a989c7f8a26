//! `portolan-loadtest`: load and upstreams on the command line.

mod backend;
mod run;

use std::process::ExitCode;

use clap::Parser;

/// Measures a gateway: sends load at a fixed rate, and serves as the upstreams behind it.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Send requests and show what came of them; exits with 1 if any failed.
    Run(run::Options),
    /// Serve as an upstream that answers with its name, until SIGTERM.
    Backend(backend::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Run(options) => run::run(options),
        Command::Backend(options) => backend::run(&options),
    }
}
