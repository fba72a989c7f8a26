//! How long a change takes until it can be used, and what holding everything costs.
//!
//! `cargo xtask bench convergence [--json]`. Two parts:
//!
//! - **Scripted**: store, table and workers in this process, 5,000 Services with 100,000 endpoints (one Service with
//!   5,000), and a scripted source that makes single endpoints ready and not ready, in random order, at 100 and at
//!   1,000 changes a second. Measured from the moment the watch stream yields the object, before any translation or
//!   gathering, until every worker can use the new table.
//! - **API server**: the real binary on a real API server with 1,000 Services; an EndpointSlice is written to name
//!   another endpoint. Measured from the acknowledged write to the first request that the new endpoint answered. Left
//!   out, with its figure null, where no control plane is at hand; on CI that is a failure.
//!
//! It is a bench and no example because cargo then builds it optimised, beside the `portolan` binary that the second
//! part runs, and with the development dependencies; and it is in this package because this one alone knows discovery
//! and data path.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
#![allow(clippy::unwrap_used, reason = "a bench; a panic is how it fails")]

mod api_server;
#[allow(dead_code, reason = "shared: each user needs its own part of it")]
#[path = "../cluster/mod.rs"]
mod cluster;
mod fleet;
mod memory;
mod observe;
mod script;
mod scripted;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;

/// Measures how long a change takes until it can be used.
#[derive(Debug, Parser)]
struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How long each rate of changes is kept up.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Only print the figures, whatever they are.
    #[arg(long)]
    no_goals: bool,
    /// Leave out the part on a real API server.
    #[arg(long, conflicts_with = "only_api_server")]
    only_scripted: bool,
    /// Leave out the scripted part.
    #[arg(long)]
    only_api_server: bool,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was measured; times in milliseconds. What was left out is null.
#[derive(Debug, Default, Serialize)]
struct Figures {
    event_to_swap_p50_ms: Option<f64>,
    event_to_swap_p99_ms: Option<f64>,
    event_to_swap_max_ms: Option<f64>,
    event_to_swap_p50_ms_at_1000: Option<f64>,
    event_to_swap_p99_ms_at_1000: Option<f64>,
    event_to_swap_max_ms_at_1000: Option<f64>,
    write_to_request_p50_ms: Option<f64>,
    write_to_request_p99_ms: Option<f64>,
    write_to_request_max_ms: Option<f64>,
    rss_mib: Option<f64>,
    peak_rss_mib: Option<f64>,
    first_table_ms: Option<f64>,
    services: Option<usize>,
    endpoints: Option<usize>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let mut figures = Figures::default();
    if !options.only_api_server {
        scripted::measure(options.duration, &mut figures)?;
    }
    if !options.only_scripted {
        api_server::measure(&mut figures)?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", figures.table());
    }
    let missed = figures.missed();
    for goal in &missed {
        eprintln!("missed: {goal}");
    }
    Ok(if missed.is_empty() || options.no_goals { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Figures {
    fn table(&self) -> String {
        let mut text = String::new();
        if let (Some(services), Some(endpoints), Some(first)) =
            (self.services, self.endpoints, self.first_table_ms)
        {
            text +=
                &format!("{services} Services, {endpoints} endpoints, the first table after {first:.0} ms\n");
        }
        text += "milliseconds                      p50       p99       max\n";
        text += &line(
            "event to swap, 100/s",
            [self.event_to_swap_p50_ms, self.event_to_swap_p99_ms, self.event_to_swap_max_ms],
        );
        text += &line(
            "event to swap, 1,000/s",
            [
                self.event_to_swap_p50_ms_at_1000,
                self.event_to_swap_p99_ms_at_1000,
                self.event_to_swap_max_ms_at_1000,
            ],
        );
        text += &line(
            "write to request",
            [self.write_to_request_p50_ms, self.write_to_request_p99_ms, self.write_to_request_max_ms],
        );
        if let (Some(resident), Some(peak)) = (self.rss_mib, self.peak_rss_mib) {
            text += &format!("resident memory             {resident:.1} MiB (peak {peak:.1} MiB)\n");
        }
        text
    }

    /// The goals that were not reached.
    fn missed(&self) -> Vec<String> {
        let goals = [
            ("event_to_swap_p99_ms", self.event_to_swap_p99_ms, 10.0),
            ("event_to_swap_p99_ms_at_1000", self.event_to_swap_p99_ms_at_1000, 25.0),
            ("write_to_request_p99_ms", self.write_to_request_p99_ms, 50.0),
            ("rss_mib", self.rss_mib, 150.0),
        ];
        goals
            .into_iter()
            .filter_map(|(name, figure, goal)| {
                let figure = figure?;
                (figure > goal).then(|| format!("{name} is {figure:.2}, the goal is at most {goal}"))
            })
            .collect()
    }
}

/// One line of the table.
fn line(name: &str, times: [Option<f64>; 3]) -> String {
    let columns: String = times
        .into_iter()
        .map(|time| time.map_or_else(|| format!(" {:>9}", "-"), |time| format!(" {time:>9.2}")))
        .collect();
    format!("{name:<27}{columns}\n")
}
