//! `portolan-loadtest peers`: Portolan beside the proxies that its users would pick instead.
//!
//! **What is compared.** The CPU time that a proxy itself takes for a request, user and system, from `/proc`. It depends
//! least on how fast the rest of the machine is. Each proxy runs alone on one core with one worker; upstreams and load
//! share another. Rounds are interleaved (A B C, A B C, …), so that a machine that drifts drifts for all; medians count.
//!
//! **The way through.** [`cases`] says what is measured and [`goals`] what must come of it; [`wheels`] fetches the
//! peers, and one file for each knows how it is configured; [`measure`] takes one figure, [`contest`] all of a case;
//! [`table`] and [`evidence`] show them.

mod answer;
mod cases;
mod certificate;
mod contest;
mod envoy;
mod evidence;
mod goals;
mod haproxy;
mod idle;
mod instructions;
mod load;
mod machine;
mod measure;
mod nginx;
mod peer;
mod portolan;
mod ports;
mod processes;
mod results;
mod server;
mod setup;
mod spring;
mod table;
pub(crate) mod tether;
mod traefik;
pub(crate) mod validate;
mod wheels;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::cases::{CASES, Case};
use self::contest::Contest;
use self::machine::Cores;
use self::peer::{Peer, Programs};
use self::results::{Results, Run};
use self::setup::Bench;

/// The options of `peers`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is measured in each case.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// How long each measurement takes in seconds, a warm-up of one second not counted.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these cases, with commas between; `--case list` shows them.
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Only these proxies, with commas between.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Peer>,
    /// This program as Portolan; without it, the release build of this work tree is made.
    #[arg(long, value_name = "PROGRAM")]
    portolan: Option<PathBuf>,
    /// Write everything that was measured into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Begin with the cases in this file, written by `--json` of an earlier run; those that are measured again replace
    /// them. So a long table can be made in parts.
    #[arg(long, value_name = "FILE")]
    add_to: Option<PathBuf>,
    /// Write the tables into this document, between its two markers.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Exit with 1 when a goal is missed, a request failed or a proxy did not run.
    #[arg(long)]
    check: bool,
}

/// Measures, prints the tables, and judges them if asked to.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.case.iter().any(|name| name == "list") {
        return list();
    }
    let cases = cases::named(&options.case)?;
    let before = options.add_to.as_deref().map(Results::read).transpose()?;
    let cores = Cores::of_this_process()?;
    machine::raise_open_files()?;
    let contestants = if options.only.is_empty() { Peer::DEFAULT.to_vec() } else { options.only.clone() };
    // Whatever compiles or is downloaded does so before anything is measured, and on every core.
    let programs = Programs::find(&contestants, options.portolan.as_deref())?;
    let run = Run::new(&programs, options.rounds, options.seconds);
    cores.stay_on_load()?;
    let results = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        // What is dropped here ends its processes.
        tokio::select! {
            results = measure_all(options, cores, programs, Results::new(run, before), &cases) => results,
            _ = interrupted.recv() => bail!("interrupted; every server has been stopped"),
            _ = terminated.recv() => bail!("terminated; every server has been stopped"),
        }
    })?;
    let faults = goals::faults(&results);
    let mut out = std::io::stdout().lock();
    for fault in &faults {
        writeln!(out, "not as it should be: {fault}")?;
    }
    Ok(if options.check && !faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure_all(
    options: &Options,
    cores: Cores,
    programs: Programs,
    mut results: Results,
    cases: &[&'static Case],
) -> anyhow::Result<Results> {
    let bench = Bench::set_up(cores, programs).await?;
    let mut contest = Contest::new(&bench, results.run.clone());
    writeln!(std::io::stdout(), "{}", contest.announce(cases))?;
    for case in cases {
        if let Some(result) = contest.hold(case).await? {
            write!(std::io::stdout(), "\n{}", table::of(case, &result))?;
            results.add(result);
            // What a long run has measured is there also when it does not come to its end.
            options.keep(&results)?;
        }
    }
    options.keep(&results)?;
    Ok(results)
}

impl Options {
    /// Writes what there is into the files that are asked for.
    fn keep(&self, results: &Results) -> anyhow::Result<()> {
        if let Some(file) = &self.json {
            results.write(file)?;
        }
        if let Some(file) = &self.markdown {
            evidence::write(file, results)?;
        }
        Ok(())
    }
}

fn list() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for case in CASES {
        writeln!(out, "{:<12} {}", case.name, case.title)?;
    }
    Ok(ExitCode::SUCCESS)
}
