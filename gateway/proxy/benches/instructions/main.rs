//! How many instructions the hot paths take: `cargo xtask bench instructions`, and the step `bench` of
//! `cargo xtask test`, which fails when a case takes 3 % more than its baseline (`baseline.json`) or misses a goal.
//!
//! Time is noisy, instructions are not: callgrind counts each one that runs in user space, and presents the same
//! processor to the program wherever it runs, so that glibc and memchr choose the same code everywhere. What it does not
//! see is the kernel and the cost of a cache miss; those are measured by `portolan-loadtest peers`.
//!
//! The program runs itself under valgrind, in one of two ways:
//!
//! - **Inside** (`inside.rs`): set-up, then a number of look-ups, picks or swaps in one function, and only what happens
//!   in that function is counted.
//! - **Requests** (`requests.rs`): a gateway under valgrind, its clients and its upstream in the process that started
//!   it, which is not. It runs twice, with few and with many requests; the difference is theirs alone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod baseline;
mod callgrind;
mod inside;
mod requests;
mod wire;
mod world;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::baseline::{Baseline, Counted};

/// What it was called for.
enum Task {
    /// Count, compare, and write the baseline anew if asked to.
    Measure { bless: bool, only: Vec<String> },
    /// Under valgrind: run one case.
    Inside(String),
    /// Under valgrind: be the gateway of one case, with this upstream.
    Serve(String, String),
}

fn main() -> Result<ExitCode> {
    match task(std::env::args().skip(1))? {
        Task::Measure { bless, only } => return measure(bless, &only),
        Task::Inside(case) => inside::run(&case)?,
        Task::Serve(case, upstream) => requests::serve(&case, upstream.parse()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn task(mut arguments: impl Iterator<Item = String>) -> Result<Task> {
    let (mut bless, mut only) = (false, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().ok_or_else(|| anyhow::anyhow!("{argument} wants another word"));
        match argument.as_str() {
            "--bless" => bless = true,
            // Cargo passes it to every bench.
            "--bench" => {}
            "--inside" => return Ok(Task::Inside(next()?)),
            "--serve" => return Ok(Task::Serve(next()?, next()?)),
            part if !part.starts_with('-') => only.push(part.to_owned()),
            other => bail!("unknown argument {other}; there are --bless and parts of the names of cases"),
        }
    }
    Ok(Task::Measure { bless, only })
}

fn measure(bless: bool, only: &[String]) -> Result<ExitCode> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    let mut baseline = Baseline::read()?;
    let mut counted = Counted::default();
    let inside = inside::CASES.iter().filter(|case| wanted(case.name));
    for case in inside {
        counted.add(case.name, case.count()?, &baseline);
    }
    for case in requests::CASES.iter().filter(|case| wanted(case.name)) {
        counted.add(case.name, median_of_three(|| case.count())?, &baseline);
    }
    if bless {
        baseline.bless(&counted, only.is_empty());
        baseline.write()?;
        println!("\nthis is the new baseline: {}", Baseline::path().display());
    }
    let faults = counted.faults(&baseline);
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many requests a worker finds ready when it wakes up is chance, and moves a single count by up to one in a hundred.
fn median_of_three(mut count: impl FnMut() -> Result<u64>) -> Result<u64> {
    let mut counts = [count()?, count()?, count()?];
    counts.sort_unstable();
    Ok(counts[1])
}
