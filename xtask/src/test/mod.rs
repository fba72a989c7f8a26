//! `cargo xtask test`: every check, fast ones first, closed by a line of counts.

mod architecture;
mod complaints;
mod control_plane;
mod counts;
mod e2e;
mod generated;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::ValueEnum;
use portolan_testbed::sweep;

use crate::tools::{self, cargo};

pub(crate) use counts::Counts;
pub(crate) use counts::Results;
pub(crate) use counts::run as run_and_count;
pub(crate) use generated::write as write_generated;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only these steps (repeatable, or with commas)
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// Stop at the first step that fails
    #[arg(long)]
    fail_fast: bool,
    /// For the test binaries: a part of the names of the tests to run, --nocapture and the like
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// In order of speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting
    Fmt,
    /// Lints of every target, warnings are errors
    Clippy,
    /// The documentation builds without a warning
    Docs,
    /// Tests that need nothing but the machine
    Unit,
    /// The catalogue of hostile input, byte for byte, against the real binary
    Hostile,
    /// Bans, licenses and sources of dependencies; who may know whom
    Deny,
    /// Generated files are those that the code generates
    Generated,
    /// The hot paths take no more instructions than before
    Bench,
    /// Discovery against a real API server
    Apiserver,
    /// The real binary against a real API server
    Binary,
    /// The manifests, admitted by a real API server and acted upon by its controllers
    Deploy,
    /// The test bed's own node: pods run, and nothing stays behind
    Node,
    /// The life of an application on a real node, with Portolan in front of it: the short walk
    E2e,
}

/// How a step went.
struct Outcome {
    step: Step,
    results: Results,
    took: Duration,
    failure: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    sweep()?;
    let mut outcomes = Vec::new();
    for step in Step::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(step) {
            continue;
        }
        let outcome = step.run(&arguments.rest);
        let failed = outcome.failure.is_some();
        outcomes.push(outcome);
        if failed && arguments.fail_fast {
            break;
        }
    }
    Ok(report(&outcomes))
}

fn report(outcomes: &[Outcome]) -> ExitCode {
    println!("\n===== all steps");
    for Outcome { step, results, took, failure } in outcomes {
        let counts = results.counts;
        let verdict = failure.as_deref().unwrap_or("ok");
        println!("{:<10} {:>6.1} s  {counts}  {verdict}", step.name(), took.as_secs_f64());
    }
    // Last, for a reader of whose log the middle is cut out.
    for Outcome { step, results, .. } in outcomes.iter().filter(|it| !it.results.complaints.is_empty()) {
        println!("\n===== {}: what failed", step.name());
        for line in &results.complaints {
            println!("{line}");
        }
    }
    let counts: Counts = outcomes.iter().map(|outcome| outcome.results.counts).sum();
    // CI reads this line.
    println!("\n{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, rest: &[String]) -> Outcome {
        println!("\n===== {}", self.name());
        let begin = SystemTime::now();
        let result = self.check(rest);
        let took = begin.elapsed().unwrap_or_default();
        let (mut results, failure) = match result {
            Ok(results) if results.counts.failed == 0 => (results, None),
            Ok(results) => (results, Some("FAILED".to_owned())),
            Err(error) => (Results::default(), Some(format!("FAILED: {error:#}"))),
        };
        if failure.is_some() {
            // A step that failed before any test ran is a failure all the same.
            results.counts.failed = results.counts.failed.max(1);
        }
        println!(
            "----- {}: {} in {:.1} s",
            self.name(),
            failure.as_deref().unwrap_or("ok"),
            took.as_secs_f64()
        );
        Outcome { step: self, results, took, failure }
    }

    fn check(self, rest: &[String]) -> Result<Results> {
        match self {
            Step::Fmt => tools::run(cargo().args(["fmt", "--all", "--check"]))?,
            Step::Clippy => {
                tools::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
            }
            Step::Docs => {
                let mut doc = cargo();
                doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
                tools::run(&mut doc)?;
            }
            Step::Unit => return unit(rest),
            Step::Hostile => return hostile(rest),
            Step::Deny => {
                let mut deny = std::process::Command::new(tools::cargo_deny()?);
                tools::run(deny.args(["--workspace", "--locked", "check", "bans", "licenses", "sources"]))?;
                architecture::check()?;
            }
            Step::Generated => generated::check()?,
            Step::Bench => crate::bench::instructions(&[])?,
            Step::Apiserver | Step::Binary | Step::Deploy | Step::Node => {
                return control_plane::run(self, rest);
            }
            Step::E2e => return e2e::run(rest),
        }
        Ok(Results::default())
    }
}

/// The whole workspace in one selection, here and in every later step: another selection would unite features
/// differently and compile the dependencies again.
fn unit(rest: &[String]) -> Result<Results> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast", "--"]).args(rest);
    // Tests that need a control plane have steps of their own: on CI they are not left out.
    test.env(portolan_testbed::SHARED, "in a later step");
    counts::run(&mut test)
}

/// Ignored in the step of the unit tests, because it takes long and needs the machine for itself.
fn hostile(rest: &[String]) -> Result<Results> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--test", "hostile", "--no-fail-fast", "--"]);
    // One after the other: some of them measure time and memory. What they counted is shown.
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).args(rest);
    counts::run(&mut test)
}
