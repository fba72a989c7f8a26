//! Pods whose server dies: deleted by force, killed, killed again and again.

use std::time::Duration;

use anyhow::Result;

use super::{LATENCY, answers, call, stop, victim};
use crate::app::{App, Blueprint};
use crate::step::{self, Step};

/// How often a crashing server comes up and dies at once. The kubelet waits 10 s, 20 s, … before it starts it again.
const CRASHES: [usize; 2] = [2, 4];
/// The kubelet waits at most this long before the last of them.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn deleted_killed_and_crashing_pods() {
    step::run(4, "self-healing", |step| {
        let app = Blueprint::named("mortal").rude().replicas(3).latency(LATENCY).create(step)?;
        deleted(step, &app)?;
        killed(step, &app)?;
        crashing(step, &app)
    });
}

/// `kubectl delete pod --force --grace-period=0`.
fn deleted(step: &mut Step, app: &App) -> Result<()> {
    let callers = call(step, app, 0.1)?;
    let pod = victim(app)?;
    step.cluster.kubectl(&["delete", "pod", &pod.name, "--force", "--grace-period=0"])?;
    app.wait_for_rollout()?;
    let both = stop(step, callers)?;
    both.note(step, "delete --force");
    both.no_idempotent_failed("delete --force")
}

/// `kill -9` of the server: the kubelet starts it again.
fn killed(step: &mut Step, app: &App) -> Result<()> {
    let callers = call(step, app, 0.1)?;
    let pod = victim(app)?;
    pod.kill(step.cluster, "echo")?;
    answers(&pod, LONGEST_BACK_OFF)?;
    let both = stop(step, callers)?;
    both.note(step, "kill -9");
    both.no_idempotent_failed("kill -9")
}

/// Killed as soon as it serves again, each time: the shape of a crash loop that is worst for its callers.
fn crashing(step: &mut Step, app: &App) -> Result<()> {
    app.wait_for_rollout()?;
    let callers = call(step, app, 0.1)?;
    let pod = victim(app)?;
    for _ in 0..CRASHES[usize::from(step.plan.full)] {
        answers(&pod, LONGEST_BACK_OFF)?;
        pod.kill(step.cluster, "echo")?;
    }
    let both = stop(step, callers)?;
    both.note(step, "crash loop");
    both.no_idempotent_failed("crash loop")
}
