//! `portolan-loadtest run`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use http::Method;
use portolan_loadtest::measure::{Measured, Plan, Protocol, Shot, Target, Trust};

/// The options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to ask: an http:// or https:// URL.
    url: String,
    /// Requests a second, evenly spaced, whatever the answers do; latency counts from when each was due. Without it the
    /// loop is closed.
    #[arg(long, conflicts_with = "closed")]
    rate: Option<f64>,
    /// Each connection or stream sends its next request when the one before has ended.
    #[arg(long)]
    closed: bool,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How long to measure: 4s, 2m.
    #[arg(long, default_value = "4s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to send before anything counts.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// End after so many requests, those of the warm-up included.
    #[arg(long)]
    count: Option<u64>,
    /// How long a request may take, from its due time to its last byte.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Open a connection for each request, and ask for its end.
    #[arg(long, conflicts_with = "h2")]
    new_connections_only: bool,
    /// The method of each request.
    #[arg(long, default_value = "GET")]
    method: Method,
    /// The size of the body of each request in bytes.
    #[arg(long, default_value_t = 0)]
    body_size: usize,
    /// Speak HTTP/2; without TLS by prior knowledge.
    #[arg(long)]
    h2: bool,
    /// Requests at a time on each connection of HTTP/2.
    #[arg(long, default_value_t = 16, requires = "h2")]
    streams: usize,
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
}

/// Measures, and prints what came of it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let measured = options.plan()?.start()?.wait()?;
    ensure!(measured.requests > 0, "no request ended in the time that counts: measure longer, or send more");
    options.print(&measured)?;
    Ok(if measured.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn plan(&self) -> anyhow::Result<Plan> {
        let target = Target::parse(&self.url)?;
        let target = match &self.server_name {
            Some(name) => target.server_name(name),
            None => target,
        };
        let protocol = if self.h2 { Protocol::Http2 { streams: self.streams } } else { Protocol::Http1 };
        let mut plan = Plan::to(&target, protocol, &self.trust(&target)?)?;
        let body = Bytes::from(vec![b'.'; self.body_size]);
        for shot in &mut plan.requests {
            *shot = Shot { method: self.method.clone(), body: body.clone(), ..shot.clone() };
        }
        plan.rate = self.rate;
        plan.connections = self.connections;
        plan.new_connections = if self.new_connections_only { 1.0 } else { 0.0 };
        plan.warm_up = self.warm_up;
        plan.duration = Some(self.duration);
        plan.count = self.count;
        plan.timeout = self.timeout;
        Ok(plan)
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
