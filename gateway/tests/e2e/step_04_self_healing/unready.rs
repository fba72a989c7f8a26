//! A pod that says that it is not ready, and one that also answers with errors from then on.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{LATENCY, call, stop, turn, victim};
use crate::app::{App, Blueprint};
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{Both, Traffic};
use crate::{gateway, wait};

/// More bad answers than the default of `outlier-failures`, for what is under way when the fifth one comes.
const BAD_FOR_EACH_GATEWAY: usize = 10;

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn a_pod_that_stops_being_ready() {
    step::run(4, "self-healing", |step| {
        let app = Blueprint::named("moody").replicas(3).latency(LATENCY).create(step)?;
        serves_on(step, &app)?;
        fails(step, &app)
    });
}

/// Its probe fails and its answers stay good: it gets no more requests, and nobody notices. A connection that kube-proxy
/// has once given to a pod stays there.
fn serves_on(step: &mut Step, app: &App) -> Result<()> {
    let (both, pod, turned, back) = turned(step, app, "ready=no", "ready=yes")?;
    let asked_for = |traffic: &Traffic| {
        let entries = traffic.book.due_between(turned, back);
        let last = entries.iter().filter(|it| it.upstream.as_ref() == Some(&pod)).map(|it| it.due).max();
        last.map_or(Duration::ZERO, |due| due - turned)
    };
    let (portolan, kube_proxy) = (asked_for(&both.portolan), asked_for(&both.kube_proxy));
    both.note(step, "not ready");
    step.figures.beside("not ready: asked for", time(portolan), time(kube_proxy));
    ensure!(portolan < back - turned - LATENCY * 10, "the pod that is not ready was asked to the end");
    step.none_failed("not ready", &both.portolan)
}

/// Its probe fails and so do its answers.
fn fails(step: &mut Step, app: &App) -> Result<()> {
    let gateways = gateway::pods(step.cluster)?.len();
    let (sick, well) = ("ready=no&failures=100%25&mode=503", "ready=yes&failures=0%25");
    let (both, ..) = turned(step, app, sick, well)?;
    both.note(step, "not ready and 503");
    let failed = both.portolan.report.failed;
    // On a busy machine more is under way at once.
    let most = (gateways * BAD_FOR_EACH_GATEWAY * if step.plan.full { 1 } else { 5 }) as u64;
    ensure!(failed <= most, "{failed} bad answers through Portolan\n{}", both.portolan.report);
    Ok(())
}

/// A pod's switches turned under load and, well after Kubernetes has noticed, turned back: what came of it, the pod,
/// and when it was turned and turned back.
fn turned(step: &Step, app: &App, sick: &str, well: &str) -> Result<(Both, String, Instant, Instant)> {
    let callers = call(step, app, 0.1)?;
    let pod = victim(app)?;
    let is = |ready: bool| move |it: &crate::app::Pod| it.ready == ready;
    turn(&pod, sick)?;
    let turned = Instant::now();
    seen(app, &pod.name, is(false))?;
    wait::look(Duration::from_secs(2));
    let back = Instant::now();
    turn(&pod, well)?;
    seen(app, &pod.name, is(true))?;
    Ok((stop(step, callers)?, pod.name, turned, back))
}

/// Returns when Kubernetes says so of the pod.
fn seen(app: &App, name: &str, is: impl Fn(&crate::app::Pod) -> bool) -> Result<()> {
    wait::until(&format!("readiness of {name}"), Duration::from_secs(90), || {
        Ok(app.pods()?.iter().any(|pod| pod.name == name && is(pod)).then_some(()))
    })
}
