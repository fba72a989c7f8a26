//! `portolan-loadtest backend`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use portolan_loadtest::amount;
use portolan_loadtest::upstream::{Mode, Switches, Upstream};
use tokio::signal::unix::{SignalKind, signal};

/// The options of `backend`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen; port 0 takes any. The address is printed once connections are accepted.
    #[arg(long, env = "ECHO_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// What it calls itself; the host's name (in a pod: the pod's) unless set.
    #[arg(long, env = "ECHO_NAME", default_value_t = host_name())]
    name: String,
    /// How long it waits before it answers.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// The share of requests that fail: 5%.
    #[arg(long, default_value = "0%", value_parser = amount::share)]
    failures: f64,
    /// How they fail: a status, reset, cut-body or hang.
    #[arg(long, default_value = "500")]
    mode: Mode,
    /// How long an answer's body is; 0 sends the name.
    #[arg(long, default_value_t = 0)]
    body: u64,
    /// What SIGTERM does: `exit` at once, `finish` what is under way, or `delay=100ms` to serve on for so long and then
    /// exit at once.
    #[arg(long, default_value = "finish", value_parser = OnTerm::parse)]
    on_term: OnTerm,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy)]
enum OnTerm {
    Exit,
    Finish,
    Delay(Duration),
}

/// Serves until SIGTERM.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the address is printed: whoever has read it may send the signal.
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let upstream = options.upstream().start()?;
        writeln!(std::io::stdout(), "{} listens on {}", upstream.name(), upstream.address())?;
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        match options.on_term {
            OnTerm::Exit => upstream.kill(),
            OnTerm::Finish => upstream.finish(),
            OnTerm::Delay(delay) => {
                tokio::time::sleep(delay).await;
                upstream.kill();
            }
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
        Upstream { switches, ..Upstream::named(&self.name).at(self.listen) }
    }
}

impl OnTerm {
    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text.split_once('=') {
            None if text == "exit" => Self::Exit,
            None if text == "finish" => Self::Finish,
            Some(("delay", delay)) => Self::Delay(humantime::parse_duration(delay)?),
            _ => bail!("{text:?} is not exit, finish or delay=TIME"),
        })
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "echo".to_owned() } else { name.trim().to_owned() }
}
