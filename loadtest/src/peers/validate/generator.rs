//! Who asks, and what it says of the answers.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::super::cases::Request;
use super::super::load;
use super::super::setup::Bench;

/// A load generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generator {
    /// `portolan-loadtest run`.
    Ours,
    /// wrk: HTTP/1.1.
    Wrk,
    /// h2load: HTTP/2, and HTTP/1.1.
    H2load,
}

/// What a generator says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answers {
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// Milliseconds, if it says so.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

impl Generator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "run",
            Self::Wrk => "wrk",
            Self::H2load => "h2load",
        }
    }

    /// Asks for so long, as fast as the answers come.
    pub(super) async fn ask(
        self,
        bench: &Bench,
        request: Request,
        address: SocketAddr,
        time: Duration,
    ) -> anyhow::Result<Answers> {
        match self {
            Self::Ours => {
                let seen = load::ask(&bench.ourselves, request, address, None, time).await?;
                Ok(Answers {
                    answered: seen.requests,
                    failed: seen.errors.values().sum(),
                    p50_ms: Some(seen.latency_us.p50 / 1e3),
                    p99_ms: Some(seen.latency_us.p99 / 1e3),
                })
            }
            Self::Wrk => wrk(&said(wrk_arguments(request, address, time), time).await?),
            Self::H2load => {
                let folder = bench.work_folder()?;
                let body = folder.path().join("body");
                fs::write(&body, vec![b'.'; request.body])?;
                let body = (request.body > 0).then(|| body.display().to_string());
                h2load(&said(h2load_arguments(request, address, time, body), time).await?)
            }
        }
    }
}

fn url(request: Request, address: SocketAddr) -> String {
    let scheme = if request.tls { "https" } else { "http" };
    format!("{scheme}://{address}{}", request.path)
}

fn wrk_arguments(request: Request, address: SocketAddr, time: Duration) -> Vec<String> {
    let mut words = vec!["wrk".to_owned(), "-t1".to_owned(), format!("-c{}", request.connections)];
    words.extend([
        format!("-d{}s", time.as_secs()),
        "--latency".to_owned(),
        "--timeout".to_owned(),
        "5s".to_owned(),
    ]);
    if request.new_connections {
        words.extend(["-H".to_owned(), "Connection: close".to_owned()]);
    }
    words.push(url(request, address));
    words
}

fn h2load_arguments(
    request: Request,
    address: SocketAddr,
    time: Duration,
    body: Option<String>,
) -> Vec<String> {
    let mut words = vec!["h2load".to_owned(), "-t1".to_owned(), format!("-c{}", request.connections)];
    words.extend([format!("-m{}", request.streams), format!("-D{}", time.as_secs())]);
    if !request.http2 {
        words.push("--h1".to_owned());
    }
    words.extend(body.map(|file| format!("--data={file}")));
    words.push(url(request, address));
    words
}

/// What a program says that runs for so long.
async fn said(words: Vec<String>, time: Duration) -> anyhow::Result<String> {
    let (program, arguments) = words.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(time + Duration::from_secs(20), command.output());
    let output = output.await.with_context(|| format!("{program} does not end"))??;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn wrk(said: &str) -> anyhow::Result<Answers> {
    let before = |words: &str| {
        let line = said.lines().find(|line| line.contains(words))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let time = |quantile: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(quantile))?;
        milliseconds(line.trim())
    };
    let answered =
        before("requests in").with_context(|| format!("wrk said no number of requests: {said}"))?;
    let errors = said.lines().find_map(|line| line.trim().strip_prefix("Socket errors:")).unwrap_or_default();
    let words = errors.split([',', ' ']).filter_map(|word| word.parse::<u64>().ok());
    let statuses = said.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses:"));
    let statuses = statuses.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0);
    Ok(Answers { answered, failed: words.sum::<u64>() + statuses, p50_ms: time("50%"), p99_ms: time("99%") })
}

fn h2load(said: &str) -> anyhow::Result<Answers> {
    let line = said.lines().find_map(|line| line.strip_prefix("requests: "));
    let Some(line) = line else { bail!("h2load said no number of requests: {said}") };
    let before = |word: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse::<u64>().ok()
    };
    let count = |word: &str| before(word).unwrap_or(0);
    Ok(Answers {
        answered: before("succeeded").context("h2load said nothing of success")?,
        failed: count("failed"),
        p50_ms: None,
        p99_ms: None,
    })
}

/// Of `850.00us`, `1.02ms` or `1.50s`.
fn milliseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match &text[number.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::super::super::cases;
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let said = "Running 2s test @ http://127.0.0.1:21001/\n  1 threads and 64 connections\n  Thread Stats   Avg\n  \
            Latency Distribution\n     50%  850.00us\n     75%    1.02ms\n     90%    1.40ms\n     99%    2.50ms\n  \
            160000 requests in 2.00s, 39.06MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  \
            Non-2xx or 3xx responses: 2\nRequests/sec:  80000.00\n";
        let expected = Answers { answered: 160_000, failed: 6, p50_ms: Some(0.85), p99_ms: Some(2.5) };
        assert_eq!(wrk(said).unwrap(), expected);
        assert!(wrk("unable to connect").is_err());
    }

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "starting benchmark...\n\nfinished in 2.00s, 60000.50 req/s, 7.10MB/s\nrequests: 120001 total, 120065 \
            started, 120001 done, 119999 succeeded, 2 failed, 2 errored, 0 timeout\nstatus codes: 119999 2xx\n";
        let expected = Answers { answered: 119_999, failed: 2, p50_ms: None, p99_ms: None };
        assert_eq!(h2load(said).unwrap(), expected);
    }

    #[test]
    fn they_are_asked_for_the_same() {
        let words = |case: &str, arguments: &dyn Fn(Request, SocketAddr) -> Vec<String>| {
            arguments(cases::find(case).unwrap().request, SocketAddr::from(([127, 0, 0, 1], 20001))).join(" ")
        };
        let time = Duration::from_secs(2);
        let wrk = |request, address| wrk_arguments(request, address, time);
        let end = "-d2s --latency --timeout 5s";
        assert_eq!(words("64k", &wrk), format!("wrk -t1 -c64 {end} http://127.0.0.1:20001/b/64k"));
        let expected = format!("wrk -t1 -c64 {end} -H Connection: close http://127.0.0.1:20001/");
        assert_eq!(words("new", &wrk), expected);
        let h2load = |request, address| h2load_arguments(request, address, time, None);
        assert_eq!(words("h2", &h2load), "h2load -t1 -c4 -m16 -D2 https://127.0.0.1:20001/");
        let h2load = |request, address| h2load_arguments(request, address, time, Some("/body".to_owned()));
        assert_eq!(
            words("post", &h2load),
            "h2load -t1 -c64 -m1 -D2 --h1 --data=/body http://127.0.0.1:20001/"
        );
    }
}
