//! `portolan-loadtest validate`: the generator and the backend held against others that do the same.
//!
//! **The generator.** wrk and h2load ask the same proxy (HAProxy, with the backend behind it) for the same as `run` does.
//! If it asks as they do, the proxy takes as long for each request, and as many come back in a second.
//!
//! **The backend.** wrk asks the backend, and nginx with the same answers in its configuration or in a file: it must
//! answer as many, and take no longer for each.
//!
//! The target runs alone on one core, generators and the rest share another; rounds are interleaved, and medians are compared.

mod generator;
mod outcome;
mod target;

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::generator::Generator;
use self::outcome::{Outcome, Seen};
use self::target::Target;
use super::cases::{self, Request};
use super::machine::{self, Cores};
use super::peer::{Peer, Programs};
use super::setup::{Bench, Shape};

/// What is compared must not differ by more than this share.
const TOLERATED: f64 = 0.10;
const WARM_UP: Duration = Duration::from_secs(1);

/// The options of `validate`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// How long each measurement takes in seconds, a warm-up of one second not counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these comparisons, with commas between; `--case list` shows them.
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Exit with 1 when a comparison is off by more than 10 %.
    #[arg(long)]
    check: bool,
}

/// One comparison.
#[derive(Debug)]
struct Comparison {
    name: &'static str,
    title: &'static str,
    /// The case of `peers` whose requests are sent.
    request: &'static str,
    /// Who asks whom; the first is compared with each of the others.
    sides: &'static [(Generator, Target)],
    /// Whether more and cheaper answers are as good as the same.
    better_is_fine: bool,
}

use Generator::{H2load, Ours, Wrk};
use Target::{Backend, Nginx, Proxy};

const COMPARISONS: &[Comparison] = &[
    Comparison {
        name: "small",
        title: "HTTP/1.1, an answer of 102 bytes, 64 connections, through HAProxy",
        request: "small",
        sides: &[(Ours, Proxy), (Wrk, Proxy), (H2load, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "64k",
        title: "HTTP/1.1, an answer of 64 KiB, 64 connections, through HAProxy",
        request: "64k",
        sides: &[(Ours, Proxy), (Wrk, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "post",
        title: "HTTP/1.1, a POST of 10 KiB, 64 connections, through HAProxy",
        request: "post",
        sides: &[(Ours, Proxy), (H2load, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "new",
        title: "HTTP/1.1, a new connection for each request, 64 at once, through HAProxy",
        request: "new",
        sides: &[(Ours, Proxy), (Wrk, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "tls",
        title: "TLS 1.3, HTTP/1.1, an answer of 102 bytes, 64 connections, through HAProxy",
        request: "tls",
        sides: &[(Ours, Proxy), (Wrk, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "h2",
        title: "HTTP/2 over TLS, an answer of 102 bytes, 4 connections of 16 streams, through HAProxy",
        request: "h2",
        sides: &[(Ours, Proxy), (H2load, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "h2c",
        title: "HTTP/2 without TLS, an answer of 102 bytes, 4 connections of 16 streams, through HAProxy",
        request: "h2c",
        sides: &[(Ours, Proxy), (H2load, Proxy)],
        better_is_fine: false,
    },
    Comparison {
        name: "backend",
        title: "The backend and nginx, HTTP/1.1, an answer of 102 bytes, 64 connections",
        request: "small",
        sides: &[(Wrk, Backend), (Wrk, Nginx)],
        better_is_fine: true,
    },
    Comparison {
        name: "backend-64k",
        title: "The backend and nginx, HTTP/1.1, an answer of 64 KiB, 64 connections",
        request: "64k",
        sides: &[(Wrk, Backend), (Wrk, Nginx)],
        better_is_fine: true,
    },
];

/// Compares, prints a table for each comparison, and judges them if asked to.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.case.iter().any(|name| name == "list") {
        return list();
    }
    let comparisons = named(&options.case)?;
    for (program, package) in [("wrk", "wrk"), ("h2load", "nghttp2-client")] {
        let found = Command::new(program).arg("--version").output();
        found.with_context(|| format!("{program} is not on the PATH: install it (Debian: {package})"))?;
    }
    let cores = Cores::of_this_process()?;
    machine::raise_open_files()?;
    let programs = Programs::find(&[Peer::HaProxy, Peer::Nginx], None)?;
    cores.stay_on_load()?;
    let off = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        tokio::select! {
            off = compare_all(options, cores, programs, &comparisons) => off,
            _ = interrupted.recv() => bail!("interrupted; every server has been stopped"),
            _ = terminated.recv() => bail!("terminated; every server has been stopped"),
        }
    })?;
    Ok(if options.check && off > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Gives how many of the ratios were off.
async fn compare_all(
    options: &Options,
    cores: Cores,
    programs: Programs,
    comparisons: &[&Comparison],
) -> anyhow::Result<usize> {
    let bench = Bench::set_up(cores, programs).await?;
    let sides: usize = comparisons.iter().map(|it| it.sides.len()).sum();
    let seconds = sides as u64 * u64::from(options.rounds) * (options.seconds + 3);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} comparisons: about {} minutes", comparisons.len(), seconds.div_ceil(60))?;
    let mut off = 0;
    for comparison in comparisons {
        let outcomes = comparison.hold(&bench, options.rounds, Duration::from_secs(options.seconds)).await?;
        let (text, is_off) = outcome::table(comparison, &outcomes);
        write!(out, "\n{text}")?;
        off += is_off;
    }
    Ok(off)
}

impl Comparison {
    fn request(&self) -> Request {
        cases::find(self.request).expect("the table has this case").request
    }

    async fn hold(&self, bench: &Bench, rounds: u32, duration: Duration) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes: Vec<_> = self.sides.iter().map(|side| Outcome::new(side.label())).collect();
        for round in 1..=rounds {
            for (&side, outcome) in self.sides.iter().zip(&mut outcomes) {
                tell(&format!("{}, round {round} of {rounds}: {}", self.name, outcome.label));
                let seen = side.measure(bench, self.request(), duration).await;
                outcome.rounds.push(seen.with_context(|| format!("{}: {}", self.name, outcome.label))?);
            }
        }
        tell("");
        Ok(outcomes)
    }
}

/// What one side of a comparison does.
trait Side {
    fn label(&self) -> String;
    async fn measure(&self, bench: &Bench, request: Request, duration: Duration) -> anyhow::Result<Seen>;
}

impl Side for (Generator, Target) {
    fn label(&self) -> String {
        match self {
            (generator, Proxy) => generator.name().to_owned(),
            (_, target) => target.name().to_owned(),
        }
    }

    async fn measure(&self, bench: &Bench, request: Request, duration: Duration) -> anyhow::Result<Seen> {
        let (generator, target) = self;
        let running = target.start(bench, Shape { tls: request.tls, ..Shape::PLAIN }).await?;
        let address = if request.tls { running.tls } else { running.plain };
        let ask = |time| generator.ask(bench, request, address, time);
        ask(WARM_UP).await?;
        let before = running.cpu_time();
        let answers = ask(duration).await?;
        Ok(Seen::new(answers, running.cpu_time().since(before), duration))
    }
}

fn named(names: &[String]) -> anyhow::Result<Vec<&'static Comparison>> {
    let all = || COMPARISONS.iter().map(|it| it.name);
    if let Some(unknown) = names.iter().find(|name| !all().any(|it| it == *name)) {
        bail!("there is no comparison {unknown:?}; there are {}", all().collect::<Vec<_>>().join(", "));
    }
    let is_wanted = |it: &&Comparison| names.is_empty() || names.iter().any(|name| name == it.name);
    Ok(COMPARISONS.iter().filter(is_wanted).collect())
}

fn list() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for comparison in COMPARISONS {
        writeln!(out, "{:<12} {}", comparison.name, comparison.title)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// On one line of a terminal that the next such line replaces; elsewhere nothing.
fn tell(what: &str) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // Nobody needs to know that nobody can be told.
        drop(write!(err, "\r\x1b[K{what}"));
        drop(err.flush());
    }
}
