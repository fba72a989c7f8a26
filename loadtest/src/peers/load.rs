//! The load: `portolan-loadtest peers-load` as a process of its own, on the core that this one is bound to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::cases::Request;

/// What the load has seen.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) requests_per_second: f64,
    pub(super) latency_us: Latency,
    #[serde(default)]
    pub(super) errors: BTreeMap<String, u64>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
}

/// Asks `address` for so long; at `rate` requests a second, or as fast as the answers come.
///
/// # Errors
/// If the generator itself fails. Failed requests are no error.
pub(super) async fn ask(
    program: &Path,
    request: Request,
    address: SocketAddr,
    rate: Option<f64>,
    duration: Duration,
) -> anyhow::Result<Seen> {
    let mut command = Command::new(program);
    command.args(arguments(request, address, rate, duration)).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = timeout(duration + Duration::from_secs(30), command.output());
    let output = output.await.context("the load does not end")?.context("cannot start the load")?;
    match serde_json::from_slice(&output.stdout) {
        Ok(seen) => Ok(seen),
        Err(error) => bail!("the load failed: {error}: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn arguments(request: Request, address: SocketAddr, rate: Option<f64>, duration: Duration) -> Vec<String> {
    let mut words = vec!["peers-load".to_owned(), address.to_string()];
    let mut add = |texts: &[&str]| words.extend(texts.iter().map(|&text| text.to_owned()));
    add(&["--path", request.path, "--connections", &request.connections.to_string()]);
    add(&["--duration", &format!("{}ms", duration.as_millis())]);
    if let Some(rate) = rate {
        add(&["--rate", &format!("{rate:.0}")]);
    }
    if request.new_connections {
        add(&["--new-connections"]);
    }
    if request.body > 0 {
        add(&["--body", &request.body.to_string()]);
    }
    if request.http2 {
        add(&["--streams", &request.streams.to_string()]);
    }
    if request.tls {
        add(&["--tls"]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;

    fn words(case: &str, rate: Option<f64>) -> String {
        let request = cases::find(case).unwrap().request;
        let address = SocketAddr::from(([127, 0, 0, 1], 20001));
        arguments(request, address, rate, Duration::from_secs(4)).join(" ")
    }

    #[test]
    fn the_generator_is_asked_for_what_the_case_says() {
        let small = "peers-load 127.0.0.1:20001 --path / --connections 64 --duration 4000ms";
        assert_eq!(words("small", None), small);
        assert_eq!(words("rate", Some(30_000.4)), format!("{small} --rate 30000"));
        assert_eq!(words("post", None), format!("{small} --body 10240"));
        assert_eq!(words("handshakes", None), format!("{small} --new-connections --tls"));
        assert!(
            words("h2", None).contains(" --connections 4 ")
                && words("h2", None).ends_with("--streams 16 --tls")
        );
        assert!(words("64k", None).contains(" --path /b/64k "));
    }
}
