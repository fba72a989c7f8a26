//! `portolan-loadtest run`.

mod html;
mod plot;
mod progress;
mod scenario;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use http::Method;
use portolan_loadtest::measure::{Measured, Plan, Protocol, Shot, Target, Trust};

use self::scenario::{Scenario, Spoken};

/// The options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to ask: an http:// or https:// URL.
    url: String,
    /// Send what this file describes (see loadtest/scenarios); its paths come behind that of the URL. Options beside it win.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Requests a second, evenly spaced, whatever the answers do; latency counts from when each was due. Without it the
    /// loop is closed.
    #[arg(long, conflicts_with = "closed")]
    rate: Option<f64>,
    /// Each connection or stream sends its next request when the one before has ended.
    #[arg(long)]
    closed: bool,
    /// Connections; 64 if nothing is said.
    #[arg(long)]
    connections: Option<usize>,
    /// How long to measure: 4s, 2m; 4s if nothing is said.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How long to send before anything counts; 1s if nothing is said.
    #[arg(long, value_parser = humantime::parse_duration)]
    warm_up: Option<Duration>,
    /// Threads that send; one is enough for most targets.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// End after so many requests, those of the warm-up included.
    #[arg(long)]
    count: Option<u64>,
    /// How long a request may take, from its due time to its last byte; 5s if nothing is said.
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Open a connection for each request, and ask for its end.
    #[arg(long, conflicts_with = "h2")]
    new_connections_only: bool,
    /// The method of each request.
    #[arg(long, default_value = "GET", conflicts_with = "scenario")]
    method: Method,
    /// The size of the body of each request in bytes.
    #[arg(long, default_value_t = 0, conflicts_with = "scenario")]
    body_size: usize,
    /// Speak HTTP/2; without TLS by prior knowledge.
    #[arg(long)]
    h2: bool,
    /// Requests at a time on each connection of HTTP/2; 16 if nothing is said.
    #[arg(long)]
    streams: Option<usize>,
    /// Trust any certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Trust servers with a certificate that one of those in this PEM file has signed.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The name of the server in TLS, if not the host of the URL.
    #[arg(long)]
    server_name: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Write a report with plots into this file: one page that needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Measures, and prints what came of it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let scenario = options.scenario.as_deref().map(Scenario::read).transpose()?.unwrap_or_default();
    let measured = progress::wait(options.plan(&scenario)?.start()?)?;
    ensure!(measured.requests > 0, "no request ended in the time that counts: measure longer, or send more");
    options.print(&measured)?;
    if let Some(file) = &options.html {
        html::write(file, scenario.about.as_deref(), &measured)?;
    }
    Ok(if measured.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    /// What the options say, else what the scenario says, else what is usual.
    fn plan(&self, scenario: &Scenario) -> anyhow::Result<Plan> {
        let target = Target::parse(&self.url)?;
        let target = match &self.server_name {
            Some(name) => target.server_name(name),
            None => target,
        };
        let protocol = if self.h2 || scenario.protocol == Some(Spoken::Http2) {
            Protocol::Http2 { streams: self.streams.or(scenario.streams).unwrap_or(16) }
        } else {
            ensure!(self.streams.is_none(), "--streams is for HTTP/2: say --h2 as well");
            Protocol::Http1
        };
        let mut plan = Plan::to(&target, protocol, &self.trust(&target)?)?;
        plan.requests = self.requests(scenario, &target)?;
        plan.rate = if self.closed { None } else { self.rate.or(scenario.rate) };
        plan.connections = self.connections.or(scenario.connections).unwrap_or(64);
        plan.new_connections =
            if self.new_connections_only { 1.0 } else { scenario.new_connections.unwrap_or(0.0) };
        plan.threads = self.threads;
        plan.warm_up = self.warm_up.or(scenario.warm_up).unwrap_or(Duration::from_secs(1));
        plan.duration = Some(self.duration.or(scenario.duration).unwrap_or(Duration::from_secs(4)));
        plan.count = self.count;
        plan.timeout = self.timeout.or(scenario.timeout).unwrap_or(Duration::from_secs(5));
        Ok(plan)
    }

    fn requests(&self, scenario: &Scenario, target: &Target) -> anyhow::Result<Vec<Shot>> {
        if self.scenario.is_some() {
            return scenario.shots(target.path());
        }
        let body = Bytes::from(vec![b'.'; self.body_size]);
        let path = target.path().clone();
        Ok(vec![Shot { method: self.method.clone(), body, path, ..Shot::get("/") }])
    }

    /// Which servers are trusted is always said, and nothing else is.
    fn trust(&self, target: &Target) -> anyhow::Result<Trust> {
        match &self.ca {
            Some(file) => Trust::signed_by(file),
            None => {
                let said = self.insecure || !target.is_tls();
                ensure!(
                    said,
                    "whom to trust at {}? --ca FILE says by whom it is signed, --insecure anyone",
                    self.url
                );
                Ok(Trust::Anyone)
            }
        }
    }

    fn print(&self, measured: &Measured) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, measured)?;
            writeln!(out)?;
        } else {
            write!(out, "{measured}")?;
        }
        Ok(())
    }
}
