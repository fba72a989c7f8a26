//! `portolan-loadtest backend`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use portolan_loadtest::amount;
use portolan_loadtest::upstream::{Mode, RunningUpstream, Switches, Upstream};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The options of `backend`. Each is a variable too, so that `kubectl set env` and an image can set it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen; may be repeated or a list with commas; port 0 takes any. Each address is printed once connections
    /// are accepted. All of them answer alike.
    #[arg(long, env = "ECHO_LISTEN", value_delimiter = ',', default_values = ["0.0.0.0:8080", "0.0.0.0:8081"])]
    listen: Vec<SocketAddr>,
    /// What it calls itself, in the field `x-upstream`; the host's name by default, in a pod that of the pod.
    #[arg(long, env = "ECHO_NAME", default_value_t = host_name())]
    name: String,
    /// What it says its version is, in the field `x-version`.
    #[arg(long, env = "ECHO_VERSION", default_value = "dev")]
    answer_version: String,
    /// How long it waits before it answers.
    #[arg(long, env = "ECHO_LATENCY", default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// The share of requests that fail: 5%.
    #[arg(long, env = "ECHO_FAILURES", default_value = "0%", value_parser = amount::share)]
    failures: f64,
    /// How they fail: a status, reset, cut-body or hang.
    #[arg(long, env = "ECHO_MODE", default_value = "500")]
    mode: Mode,
    /// How long an answer's body is; 0 sends the name and the version.
    #[arg(long, env = "ECHO_BODY", default_value_t = 0)]
    body: u64,
    /// How long after its start `/healthz` and `/readyz` answer 200: a time, or `never`. Everything else is answered from
    /// the start.
    #[arg(long, env = "ECHO_READY_AFTER", default_value = "0s", value_parser = ReadyAfter::parse)]
    ready_after: ReadyAfter,
    /// What SIGTERM does: `exit` at once, `finish` what is under way, `delay=5s` to serve on for so long and then exit at
    /// once, `delay=5s,finish` to finish then, or `ignore`.
    #[arg(long, env = "ECHO_ON_TERM", default_value = "finish", value_parser = OnTerm::parse)]
    on_term: OnTerm,
    /// Crash so long after the start: exit with 1, every connection cut.
    #[arg(long, env = "ECHO_CRASH_AFTER", value_parser = humantime::parse_duration)]
    crash_after: Option<Duration>,
}

/// When it becomes ready.
#[derive(Debug, Clone, Copy)]
enum ReadyAfter {
    Time(Duration),
    Never,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnTerm {
    Ignore,
    Stop {
        /// How long it serves on.
        delay: Duration,
        /// Whether what is under way then is answered.
        finish: bool,
    },
}

/// Serves until SIGTERM or a crash.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before an address is printed: whoever has read it may send the signal. As process 1 of a container it would
        // not be ended by a signal that it does not handle.
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let upstream = options.upstream().start()?;
        for address in upstream.addresses() {
            writeln!(std::io::stdout(), "{} listens on {address}", upstream.name())?;
        }
        let finish = tokio::select! {
            finish = options.on_term.stop(&mut terminated) => finish,
            _ = interrupted.recv() => false,
            () = options.crash(&upstream) => return Ok(ExitCode::FAILURE),
        };
        if finish {
            upstream.finish();
        } else {
            upstream.kill();
        }
        Ok(ExitCode::SUCCESS)
    })
}

impl Options {
    fn upstream(&self) -> Upstream {
        let switches = Arc::new(Switches::default());
        switches.set_latency(self.latency);
        switches.set_failures(self.failures, self.mode);
        switches.set_body_bytes(self.body);
        self.ready_after.turn(&switches);
        Upstream {
            switches,
            version: self.answer_version.clone(),
            listen: self.listen.clone(),
            ..Upstream::named(&self.name)
        }
    }

    /// Returns when it is to crash.
    async fn crash(&self, upstream: &RunningUpstream) {
        let in_time = async {
            match self.crash_after {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = upstream.crashed() => {}
            () = in_time => {}
        }
    }
}

impl ReadyAfter {
    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(if text == "never" { Self::Never } else { Self::Time(humantime::parse_duration(text)?) })
    }

    /// Turns the switch now, and on again when its time has come.
    fn turn(self, switches: &Arc<Switches>) {
        switches.set_ready(matches!(self, Self::Time(Duration::ZERO)));
        if let Self::Time(time) = self
            && !time.is_zero()
        {
            let switches = switches.clone();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                switches.set_ready(true);
            });
        }
    }
}

impl OnTerm {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let delay = |time| Ok::<_, anyhow::Error>(humantime::parse_duration(time)?);
        Ok(match text.split_once('=') {
            None if text == "ignore" => Self::Ignore,
            None if text == "exit" => Self::Stop { delay: Duration::ZERO, finish: false },
            None if text == "finish" => Self::Stop { delay: Duration::ZERO, finish: true },
            Some(("delay", rest)) => match rest.strip_suffix(",finish") {
                Some(time) => Self::Stop { delay: delay(time)?, finish: true },
                None => Self::Stop { delay: delay(rest)?, finish: false },
            },
            _ => bail!("{text:?} is not exit, finish, delay=TIME, delay=TIME,finish or ignore"),
        })
    }

    /// Returns when it is to stop by SIGTERM: true if what is under way is to be finished.
    async fn stop(self, terminated: &mut Signal) -> bool {
        match self {
            Self::Ignore => std::future::pending().await,
            Self::Stop { delay, finish } => {
                terminated.recv().await;
                tokio::time::sleep(delay).await;
                finish
            }
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "echo".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_to_end() {
        let stop = |delay, finish| OnTerm::Stop { delay: Duration::from_millis(delay), finish };
        for (text, expected) in [
            ("exit", stop(0, false)),
            ("finish", stop(0, true)),
            ("delay=5s", stop(5000, false)),
            ("delay=20ms,finish", stop(20, true)),
            ("ignore", OnTerm::Ignore),
        ] {
            assert_eq!(OnTerm::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "delay", "delay=soon", "delay=5s,exit", "wait"] {
            assert!(OnTerm::parse(text).is_err(), "{text}");
        }
    }
}
