//! The tests that need a control plane: each test binary gets its own, in a network namespace of its own.

use anyhow::{Result, bail};
use portolan_testbed::{NodePrograms, Programs, is_root};

use super::Step;
use super::counts::{self, Results};
use crate::surroundings::{Extent, Surroundings};
use crate::tools::{self, cargo};

/// A test target whose ignored tests need a control plane.
struct Suite {
    step: Step,
    /// The name of the `[[test]]` target, unique in the workspace.
    target: &'static str,
    extent: Extent,
}

const SUITES: [Suite; 5] = [
    Suite { step: Step::Apiserver, target: "control_plane", extent: Extent::ApiServer },
    Suite { step: Step::Apiserver, target: "apiserver", extent: Extent::ApiServer },
    Suite { step: Step::Binary, target: "rollouts", extent: Extent::ApiServer },
    Suite { step: Step::Deploy, target: "deploy", extent: Extent::Controllers },
    Suite { step: Step::Node, target: "node", extent: Extent::Node },
];

pub(super) fn run(step: Step, rest: &[String]) -> Result<Results> {
    let suites: Vec<_> = SUITES.iter().filter(|suite| suite.step == step).collect();
    if !is_root() {
        let targets: Vec<_> = suites.iter().map(|suite| suite.target).collect();
        return left_out(&targets.join(", "));
    }
    tools::network_tools()?;
    Programs::build()?;
    if suites.iter().any(|suite| suite.extent == Extent::Node) {
        tools::node_tools()?;
        NodePrograms::build()?;
    }
    // Compiled before anything runs, so that no API server waits beside the compiler; and all of it, since the tests
    // start other programs of the workspace.
    tools::run(cargo().args(["test", "--workspace", "--no-run"]))?;
    suites.into_iter().map(|suite| suite.run(rest)).sum()
}

/// Named on a developer's desk, a failure on CI.
#[allow(
    clippy::disallowed_methods,
    reason = "CI is a fact about the surroundings, no setting of the gateway"
)]
pub(super) fn left_out(targets: &str) -> Result<Results> {
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        bail!("{targets}: these tests need root for network namespaces; on CI they may not be left out");
    }
    println!("left out, they need root for network namespaces: {targets}");
    Ok(Results::default())
}

impl Suite {
    fn run(&self, rest: &[String]) -> Result<Results> {
        let surroundings = Surroundings::start(self.target, self.extent)?;
        let mut test = cargo();
        test.args(["test", "--workspace", "--test", self.target, "--no-fail-fast", "--"]);
        test.arg("--ignored").args(rest);
        counts::run(surroundings.of(&mut test)?)
    }
}
