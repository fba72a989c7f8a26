//! `portolan-loadtest`: load and upstreams on the command line.

mod backend;
mod churn;
mod peers;
mod run;
mod watch;

use std::process::ExitCode;

use clap::Parser;

/// Measures a gateway: sends load at a fixed rate, and serves as the upstreams behind it.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Measure a target: as many requests as it can answer, or a fixed rate, with little work for each; exits with 1 if
    /// any failed.
    Run(Box<run::Options>),
    /// Watch a target closely: send requests and keep the story of each failure; exits with 1 if there was one.
    Watch(Box<watch::Options>),
    /// Serve as an upstream that answers with its name, until SIGTERM.
    Backend(backend::Options),
    /// Change the endpoints of a Service in a folder of manifests at a given rate.
    Churn(churn::Options),
    /// Measure Portolan beside HAProxy, nginx, Envoy and Traefik: the CPU time that each takes for a request.
    Peers(peers::Options),
    /// Hold the generator and the backend of this program against wrk, h2load and nginx.
    Validate(peers::validate::Options),
    /// Become another program that ends with the process that started it.
    #[command(hide = true)]
    Tethered(peers::tether::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Run(options) => run::run(&options),
        Command::Watch(options) => watch::run(*options),
        Command::Backend(options) => backend::run(&options),
        Command::Churn(options) => churn::run(&options),
        Command::Peers(options) => peers::run(&options),
        Command::Validate(options) => peers::validate::run(&options),
        Command::Tethered(options) => peers::tether::run(&options),
    }
}
