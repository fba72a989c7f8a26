//! The tests that need a control plane: each test binary gets its own, in a network namespace of its own.

use std::process::Command;

use anyhow::{Context, Result, bail};
use portolan_testbed::{ControlPlane, Netns, Options, Programs, SHARED, is_root};

use super::Step;
use super::counts::{self, Counts};
use crate::tools::{self, cargo};

/// A test target whose ignored tests need a control plane.
struct Suite {
    step: Step,
    /// The name of the `[[test]]` target, unique in the workspace.
    target: &'static str,
    controllers: bool,
}

const SUITES: [Suite; 3] = [
    Suite { step: Step::Apiserver, target: "control_plane", controllers: false },
    Suite { step: Step::Apiserver, target: "apiserver", controllers: false },
    Suite { step: Step::Deploy, target: "deploy", controllers: true },
];

pub(super) fn run(step: Step, filter: Option<&str>) -> Result<Counts> {
    let suites: Vec<_> = SUITES.iter().filter(|suite| suite.step == step).collect();
    if !is_root() {
        let targets: Vec<_> = suites.iter().map(|suite| suite.target).collect();
        return left_out(&targets.join(", "));
    }
    tools::network_tools()?;
    Programs::build()?;
    suites.into_iter().map(|suite| suite.run(filter)).sum()
}

/// Named on a developer's desk, a failure on CI.
#[allow(
    clippy::disallowed_methods,
    reason = "CI is a fact about the surroundings, no setting of the gateway"
)]
fn left_out(targets: &str) -> Result<Counts> {
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        bail!("{targets}: these tests need root for a network namespace; on CI they may not be left out");
    }
    println!("left out, they need root for a network namespace: {targets}");
    Ok(Counts::default())
}

impl Suite {
    fn run(&self, filter: Option<&str>) -> Result<Counts> {
        // Compiled before anything runs, so that the API server does not wait beside the compiler.
        tools::run(cargo().args(["test", "--workspace", "--test", self.target, "--no-run"]))?;
        let netns = Netns::create(&format!("portolan-run-{}-{}", std::process::id(), self.target))?;
        let control_plane = ControlPlane::start(&Options {
            netns: Some(netns.name().to_owned()),
            controllers: self.controllers,
            folder: None,
            ends_with_starter: true,
        })?;
        let mut test = cargo();
        test.args(["test", "--workspace", "--test", self.target, "--no-fail-fast", "--"]);
        test.arg("--ignored").args(filter);
        test.env(runner_variable()?, format!("nsenter --net=/run/netns/{} --", netns.name()));
        test.env(SHARED, control_plane.folder());
        counts::run(&mut test)
    }
}

/// The variable by which cargo learns through which program to run a test binary.
fn runner_variable() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run `rustc -vV`")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}
