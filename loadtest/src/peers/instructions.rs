//! How many instructions a request takes in user space, counted by valgrind: the same on every machine that is not too
//! different, and the only figure that tells what a second worker costs while both have but one core.
//!
//! A proxy is counted twice from its start to its end, with few requests and with many; the difference is that of the
//! requests.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::cases::Request;
use super::load;
use super::peer::Peer;
use super::results::Round;
use super::server::Server;
use super::setup::{Bench, Shape};

const FEW: u64 = 2_000;
const MANY: u64 = 12_000;
/// How long so many requests may take under valgrind, and how long the end.
const PATIENCE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);

/// Counts one contestant.
///
/// # Errors
/// If valgrind is missing, or the proxy does not run under it.
pub(super) async fn count(
    bench: &Bench,
    peer: Peer,
    shape: Shape,
    request: Request,
) -> anyhow::Result<Round> {
    let (few, _) = once(bench, peer, shape, request, FEW).await?;
    let (many, seen) = once(bench, peer, shape, request, MANY).await?;
    let instructions = many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
    Ok(Round {
        requests: seen.requests,
        instructions: Some(instructions),
        errors: seen.errors,
        ..Round::default()
    })
}

/// Instructions from the start to the end, with so many requests between.
async fn once(
    bench: &Bench,
    peer: Peer,
    shape: Shape,
    request: Request,
    requests: u64,
) -> anyhow::Result<(u64, load::Seen)> {
    let folder = bench.work_folder()?;
    let setup = bench.setup(folder.path(), shape)?;
    let counts = folder.path().join("counts");
    let command = under_valgrind(&bench.programs.command(peer, &setup)?, &counts);
    let mut server = Server::start(&command, bench, folder.path())?;
    server.answers(setup.plain).await?;
    let seen = load::ask_times(&bench.ourselves, request, setup.plain, requests, PATIENCE).await?;
    ensure!(server.stop(STOP), "it did not end under valgrind");
    Ok((total(&counts)?, seen))
}

fn under_valgrind(command: &Command, counts: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", counts.display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    // It is found by this; what it runs gets no more.
    valgrind.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    valgrind.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    valgrind
}

fn total(counts: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(counts).context("valgrind left no counts")?;
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    line.and_then(|number| number.trim().parse().ok()).context("valgrind's counts have no total")
}
