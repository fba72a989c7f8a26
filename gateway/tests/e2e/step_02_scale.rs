//! Scaled 1 → 6 → 2 under load: no request fails, the new pods share the load, connections to the leaving pods drain.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::app::{App, Blueprint, PRE_STOP, Pod};
use crate::cluster::NAMESPACE;
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{Both, Callers, Flow, by_upstream};
use crate::watch::Watch;
use crate::{gateway, wait};

/// An answer takes this long, so that there is always something under way at a pod that leaves.
const LATENCY: Duration = Duration::from_millis(100);
/// How far from an equal share a pod's may be.
const UNEVEN: f64 = 0.25;

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn scaled_up_and_down() {
    step::run(2, "scale 1 → 6 → 2", |step| {
        let app = Blueprint::named("scale").well_behaved().latency(LATENCY).create(step)?;
        let rate = step.plan.rate;
        let callers = Callers::start(step.cluster, &app.name, rate, |load| load.with_posts(0.1, "order"))?;

        app.scale(6)?;
        app.wait_for_rollout()?;
        let shares = shares(step, &app, &callers.portolan, 6)?;
        let drained = drained(step, &app, 4, || app.scale(2))?;
        // A watched load goes on for a while: what fails late fails too.
        wait::look(step.plan.look);

        let Both { portolan, kube_proxy } = callers.stop()?;
        step.figures.note("requests", portolan.report.requests);
        step.figures.beside("failed", portolan.report.failed, kube_proxy.report.failed);
        step.figures.note("shares of the six pods, %", shares);
        step.figures.note("connections to the leaving pods gone after", time(drained));
        step.none_failed("through Portolan", &portolan)
    });
}

/// Once every pod is known, each answers its share.
fn shares(step: &Step, app: &App, flow: &Flow, count: usize) -> Result<String> {
    let begun = Instant::now();
    wait::until("an answer of every pod", Duration::from_secs(60), || {
        let answers = flow.book().due_between(begun, Instant::now());
        Ok((by_upstream(&answers).len() == count).then_some(()))
    })?;
    let from = Instant::now();
    wait::look(step.plan.look);
    let answers = flow.book().due_between(from, Instant::now());
    let counts = by_upstream(&answers);
    let total: usize = counts.values().sum();
    let equal = total as f64 / count as f64;
    for pod in app.pods()? {
        let own = *counts.get(&pod.name).unwrap_or(&0) as f64;
        ensure!((own / equal - 1.0).abs() <= UNEVEN, "{}: {own} of {total} answers: {counts:?}", pod.name);
    }
    let percent = |count: &usize| 100.0 * *count as f64 / total as f64;
    let (least, most) = (counts.values().min().map(percent), counts.values().max().map(percent));
    Ok(format!("{:.1} to {:.1}", least.unwrap_or_default(), most.unwrap_or_default()))
}

/// How long after a pod was told to go the gateways held a connection to it, of the pod for which that took longest.
/// Meanwhile the pods serve on: their preStop hook takes two seconds.
fn drained(step: &Step, app: &App, count: usize, leave: impl FnOnce() -> Result<()>) -> Result<Duration> {
    // Everything known beforehand, so that looking takes no time.
    let gateways: Vec<_> = gateway::pods(step.cluster)?
        .iter()
        .map(|gateway| step.cluster.control_plane().container_pid(NAMESPACE, &gateway.name, "portolan"))
        .collect::<Result<_>>()?;
    let watch = Watch::start(step.cluster, &["pods", "--selector", &app.selector()])?;
    leave()?;
    let mut leaving: BTreeMap<Ipv4Addr, Instant> = BTreeMap::new();
    let mut drained = BTreeMap::new();
    wait::until("no connection to a leaving pod", Duration::from_secs(60), || {
        while let Some(event) = watch.heard() {
            let pod = Pod::of(&event.object);
            if pod.terminating {
                leaving.entry(pod.address()?).or_insert(event.at);
            }
        }
        for (address, told) in &leaving {
            if !drained.contains_key(address) && held(&gateways, *address)? == 0 {
                drained.insert(*address, told.elapsed());
            }
        }
        Ok((drained.len() == count).then_some(()))
    })?;
    let slowest = drained.into_values().max().unwrap_or_default();
    // Before the pod itself could close them.
    ensure!(slowest < step.plan.limit(PRE_STOP), "a connection to a leaving pod was held for {slowest:?}");
    Ok(slowest)
}

fn held(gateways: &[i32], address: Ipv4Addr) -> Result<usize> {
    let counts = gateways.iter().map(|process| Ok(gateway::connections(*process, address)?.len()));
    counts.sum()
}
