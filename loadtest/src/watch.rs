//! `portolan-loadtest watch`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portolan_loadtest::amount;
use portolan_loadtest::load::{Load, Pace, UpstreamName};

/// The options of `watch`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to ask: an http:// URL.
    #[arg(long)]
    url: String,
    /// Ask this proxy for it, as a client does whose `http_proxy` is set to this http:// URL.
    #[arg(long)]
    proxy: Option<String>,
    /// Requests a second, evenly spaced, whatever the answers do; without it each connection sends its next request as
    /// soon as the one before has ended.
    #[arg(long)]
    rate: Option<f64>,
    /// Connections that are kept and used again.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The share of requests on a new connection each, beside the kept ones: 20%.
    #[arg(long, default_value = "0%", value_parser = amount::share)]
    new_connections: f64,
    /// The share of requests that are a POST with a body: 10%.
    #[arg(long, default_value = "0%", value_parser = amount::share)]
    post: f64,
    /// The mix of methods with their shares instead: GET:6,PUT:2,DELETE:1,POST:1.
    #[arg(long, value_delimiter = ',', value_parser = method, conflicts_with = "post")]
    mix: Vec<(Method, f64)>,
    /// The size of the body of each POST, PUT and PATCH in bytes.
    #[arg(long, default_value_t = 1024)]
    post_bytes: usize,
    /// How long to send: 30s, 2m.
    #[arg(long, value_parser = humantime::parse_duration, required_unless_present = "count")]
    duration: Option<Duration>,
    /// How many requests to send.
    #[arg(long)]
    count: Option<u64>,
    /// How long a request may take, from its due time to its last byte.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Requests that take longer than this from their due time are counted.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    slow_after: Duration,
    /// Send a request with an idempotent method once more when its kept connection was closed before a byte of the answer,
    /// as curl, Go and browsers do. Without it such a request has failed; it is counted apart either way.
    #[arg(long)]
    retry: bool,
    /// The Host field, if not the URL's.
    #[arg(long)]
    host: Option<HeaderValue>,
    /// A field on every request, `name: value`; may be repeated.
    #[arg(long = "header", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The field in answers that names the upstream, or `body` if the body is the name.
    #[arg(long, default_value = "x-upstream")]
    upstream_name: String,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the load and prints what came of it.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let json = options.json;
    let report = options.load()?.start()?.wait()?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn load(self) -> anyhow::Result<Load> {
        let load = match &self.proxy {
            Some(proxy) => Load::through_proxy(proxy, &self.url)?,
            None => Load::to_url(&self.url)?,
        };
        let upstream_name = match self.upstream_name.as_str() {
            "body" => UpstreamName::Body,
            name => UpstreamName::Header(name.parse().with_context(|| format!("--upstream-name {name:?}"))?),
        };
        let load = Load {
            host: self.host.unwrap_or_else(|| load.host.clone()),
            headers: HeaderMap::from_iter(self.headers),
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
            connections: self.connections,
            new_connections: self.new_connections,
            timeout: self.timeout,
            slow_after: self.slow_after,
            retry: self.retry,
            duration: self.duration,
            count: self.count,
            upstream_name,
            ..load
        };
        let body = Bytes::from(vec![b'.'; self.post_bytes]);
        Ok(if self.mix.is_empty() {
            load.with_posts(self.post, body)
        } else {
            load.with_mix(&self.mix, body)
        })
    }
}

/// `POST:2`, or `POST` for a share of one.
fn method(text: &str) -> anyhow::Result<(Method, f64)> {
    let (name, share) = text.split_once(':').unwrap_or((text, "1"));
    let share = share.parse().with_context(|| format!("{text:?} is not METHOD:SHARE"))?;
    Ok((name.parse().with_context(|| format!("{name:?} is not a method"))?, share))
}

fn field(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').with_context(|| format!("{text:?} is not `name: value`"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}
