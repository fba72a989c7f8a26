//! The load: `portolan-loadtest run` as a process of its own, on the core that this one is bound to.

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
    #[serde(rename = "answered")]
    pub(super) requests: u64,
    /// Not among them: answered when the time was over.
    pub(super) answered_after_end: u64,
    pub(super) requests_per_second: f64,
    pub(super) latency_us: Latency,
    #[serde(rename = "failed_by_kind")]
    pub(super) errors: BTreeMap<String, u64>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99_9")]
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
    run(program, arguments(request, address, rate, duration), duration).await
}

/// Asks so many times, as fast as the answers come, which must be within `patience`.
///
/// # Errors
/// If the generator itself fails. Failed requests are no error.
pub(super) async fn ask_times(
    program: &Path,
    request: Request,
    address: SocketAddr,
    count: u64,
    patience: Duration,
) -> anyhow::Result<Seen> {
    let mut words = arguments(request, address, None, patience);
    words.extend(["--count".to_owned(), count.to_string()]);
    run(program, words, patience).await
}

async fn run(program: &Path, words: Vec<String>, duration: Duration) -> anyhow::Result<Seen> {
    let mut command = Command::new(program);
    command.args(words).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = timeout(duration + Duration::from_secs(30), command.output());
    let output = output.await.context("the load does not end")?.context("cannot start the load")?;
    match serde_json::from_slice::<Seen>(&output.stdout) {
        Ok(seen) => Ok(seen.with_the_last()),
        Err(error) => bail!("the load failed: {error}: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

impl Seen {
    /// CPU time is shared among all requests, those that ended late included.
    fn with_the_last(self) -> Self {
        Self { requests: self.requests + self.answered_after_end, answered_after_end: 0, ..self }
    }
}

fn arguments(request: Request, address: SocketAddr, rate: Option<f64>, duration: Duration) -> Vec<String> {
    let scheme = if request.tls { "https" } else { "http" };
    let mut words = vec!["run".to_owned(), format!("{scheme}://{address}{}", request.path)];
    let mut add = |texts: &[&str]| words.extend(texts.iter().map(|&text| text.to_owned()));
    add(&["--json", "--connections", &request.connections.to_string()]);
    // The contest warms each peer up on its own.
    add(&["--duration", &format!("{}ms", duration.as_millis()), "--warm-up", "0s"]);
    if let Some(rate) = rate {
        add(&["--rate", &format!("{rate:.0}")]);
    }
    if request.new_connections {
        add(&["--new-connections-only"]);
    }
    if request.body > 0 {
        add(&["--method", "POST", "--body-size", &request.body.to_string()]);
    }
    if request.http2 {
        add(&["--h2", "--streams", &request.streams.to_string()]);
    }
    if request.tls {
        // All certificates were made here, for this measurement, and are for this name.
        add(&["--insecure", "--server-name", "localhost"]);
    }
    words
}

#[cfg(test)]
mod tests {
    use portolan_loadtest::measure::{Plan, Protocol, Target, Trust};
    use portolan_loadtest::upstream::Upstream;

    use super::super::cases;
    use super::*;

    fn words(case: &str, rate: Option<f64>) -> String {
        let request = cases::find(case).unwrap().request;
        let address = SocketAddr::from(([127, 0, 0, 1], 20001));
        arguments(request, address, rate, Duration::from_secs(4)).join(" ")
    }

    #[test]
    fn what_the_generator_prints_is_understood() {
        let answering = Upstream::named("a").start().unwrap();
        let measure = |expected| {
            let target = Target::parse(&format!("http://{}/", answering.address())).unwrap();
            let mut plan = Plan::to(&target, Protocol::Http1, &Trust::Anyone).unwrap();
            (plan.count, plan.expected) = (Some(70), expected);
            let measured = plan.start().unwrap().wait().unwrap();
            serde_json::from_str::<Seen>(&serde_json::to_string(&measured).unwrap()).unwrap()
        };
        let seen = measure(200..=200);
        assert_eq!((seen.requests, seen.errors.len()), (70, 0));
        assert!(seen.requests_per_second > 0.0 && seen.latency_us.p999 >= seen.latency_us.p50);
        let seen = measure(404..=404);
        assert_eq!((seen.requests, seen.errors), (0, [("status".to_owned(), 70)].into()));
    }

    #[test]
    fn the_generator_is_asked_for_what_the_case_says() {
        let small = "run http://127.0.0.1:20001/ --json --connections 64 --duration 4000ms --warm-up 0s";
        assert_eq!(words("small", None), small);
        assert_eq!(words("rate", Some(30_000.4)), format!("{small} --rate 30000"));
        assert_eq!(words("post", None), format!("{small} --method POST --body-size 10240"));
        let secure = small.replace("http:", "https:");
        let trust = "--insecure --server-name localhost";
        assert_eq!(words("handshakes", None), format!("{secure} --new-connections-only {trust}"));
        let few = secure.replace("64", "4");
        assert_eq!(words("h2", None), format!("{few} --h2 --streams 16 {trust}"));
        assert!(words("64k", None).contains("20001/b/64k "));
    }
}
