//! Rolled out again and again under load, with pods as most are and with pods as they should be. Beside it the same load
//! straight to the Service, by kube-proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use ::http::Method;
use anyhow::{Context as _, Result, ensure};
use portolan_loadtest::load::{FailureKind, Load, Report, Tally};
use serde_json::Value;
use tokio::time::Instant;

use crate::app::{App, Blueprint};
use crate::cluster::node_port;
use crate::step::{self, Step};
use crate::traffic::{Callers, Flow, by_upstream};
use crate::{gateway, http, wait};

/// Of four pods the default strategy starts two new ones at once and takes one old one away before they are ready.
const REPLICAS: usize = 4;
/// An answer takes this long, so that there is always something under way at a pod that ends.
const LATENCY: Duration = Duration::from_millis(50);
/// The share of requests that go on a new connection.
const NEW_CONNECTIONS: f64 = 0.3;

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn rolled_out_again_and_again() {
    step::run(3, "set image, rollout undo, rollout restart", |step| {
        step.figures.note("rollouts of each", step.plan.rollouts);
        let (app, rude) = rolled_out(step, "rude pods", Blueprint::named("rude").rude())?;
        explain(step, &app, &rude)?;
        let (_, well) = rolled_out(step, "well-behaved pods", Blueprint::named("well").well_behaved())?;
        for (pods, report) in [("rude", &rude), ("well-behaved", &well)] {
            let failed = cleanly_failed(&report.idempotent);
            ensure!(failed == 0, "{failed} idempotent requests failed with {pods} pods\n{report}");
        }
        let failed = well.failed;
        ensure!(failed == 0, "{failed} requests failed with well-behaved pods\n{well}");
        Ok(())
    });
}

/// The rollouts of one application; notes its figures.
fn rolled_out(step: &mut Step, pods: &str, blueprint: Blueprint) -> Result<(App, Report)> {
    let app = blueprint.replicas(REPLICAS).latency(LATENCY).create(step)?;
    let rate = step.plan.rate;
    let callers = Callers::start(step.cluster, &app.name, rate, mixed)?;
    let mut versions = BTreeSet::from([version(&app)?]);
    for number in 0..step.plan.rollouts {
        let expected = match number % 3 {
            0 => app.set_image("portolan-echo:v2").map(|()| "v2")?,
            1 => app.rollout("undo").map(|()| "v1")?,
            _ => app.rollout("restart").map(|()| "v1")?,
        };
        app.wait_for_rollout()?;
        everyone_answers(&app, &callers.portolan)?;
        // Each gateway by itself hears that the old pods are on their way out.
        let what = format!("rollout {number} is done, and only {expected} to answer");
        wait::until(&what, step.plan.limit(Duration::from_secs(1)), || {
            Ok((version(&app)? == expected).then_some(()))
        })?;
        versions.insert(expected.to_owned());
    }
    ensure!(versions.len() == 2, "not both versions answered: {versions:?}");
    wait::until("the last old pod to be gone", Duration::from_secs(90), || {
        Ok((app.pods()?.len() == REPLICAS).then_some(()))
    })?;
    wait::look(Duration::from_secs(1));
    let both = callers.stop()?;
    let (portolan, kube_proxy) = (both.portolan.report, both.kube_proxy.report);
    ensure!(
        portolan.requests > 0 && kube_proxy.requests > 0,
        "a load was not sent\n{portolan}\n{kube_proxy}"
    );
    note(step, pods, &portolan, &kube_proxy);
    Ok((app, portolan))
}

/// Six in ten requests can be repeated and have no body, the others are POSTs.
fn mixed(load: Load) -> Load {
    let mix = [(Method::GET, 0.4), (Method::PUT, 0.1), (Method::DELETE, 0.1), (Method::POST, 0.4)];
    let mut load = load.with_mix(&mix, "order");
    for shot in load.mix.iter_mut().filter(|shot| shot.method == Method::PUT) {
        shot.body = Default::default();
    }
    // As many as are under way at once, and some more.
    Load { new_connections: NEW_CONNECTIONS, connections: 32, ..load }
}

/// Returns when every pod of the new version has answered through Portolan.
fn everyone_answers(app: &App, flow: &Flow) -> Result<()> {
    let pods: Vec<_> = app.pods()?.into_iter().filter(|pod| !pod.terminating).collect();
    let from = Instant::now();
    wait::until("an answer of every new pod", Duration::from_secs(60), || {
        let answered = by_upstream(&flow.book().due_between(from, Instant::now()));
        Ok(pods.iter().all(|pod| answered.contains_key(&pod.name)).then_some(()))
    })
}

/// The version that answers now.
fn version(app: &App) -> Result<String> {
    let answer = http::fetch(node_port(), &app.path())?;
    let lines = answer.head.lines();
    let field = lines.filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == "x-version");
    Ok(field.with_context(|| format!("an answer without its version: {}", answer.head))?.1.to_owned())
}

fn note(step: &mut Step, pods: &str, portolan: &Report, kube_proxy: &Report) {
    let figures = &mut step.figures;
    let requests = |report: &Report| {
        format!(
            "{} ({} POST; {} on new connections)",
            report.requests, report.not_idempotent.requests, report.new_connections.requests
        )
    };
    figures.beside(&format!("{pods}: requests"), requests(portolan), requests(kube_proxy));
    let figure = |tally: &Tally| match (cleanly_failed(tally), tally.retriable) {
        (failed, 0) => failed.to_string(),
        (failed, retriable) => format!("{failed}, {retriable} of them on a kept connection"),
    };
    let idempotent = |report: &Report| figure(&report.idempotent);
    figures.beside(&format!("{pods}: failed idempotent"), idempotent(portolan), idempotent(kube_proxy));
    let post = |report: &Report| figure(&report.not_idempotent);
    figures.beside(&format!("{pods}: failed POST"), post(portolan), post(kube_proxy));
    let on =
        |report: &Report| format!("{}/{}", report.kept_connections.failed, report.new_connections.failed);
    figures.beside(&format!("{pods}: failed on kept/new connections"), on(portolan), on(kube_proxy));
    let cut = |report: &Report| mid_body(&report.idempotent) + mid_body(&report.not_idempotent);
    figures.beside(&format!("{pods}: mid_body"), cut(portolan), cut(kube_proxy));
}

/// The failures but those cut after their first byte, which nobody can repeat.
fn cleanly_failed(tally: &Tally) -> u64 {
    tally.failed - mid_body(tally)
}

fn mid_body(tally: &Tally) -> u64 {
    tally.failed_by_kind.get(&FailureKind::MidBody).copied().unwrap_or_default()
}

/// A POST that was under way at a process that ended may have been done: it fails, and is not sent again. There is no
/// other reason for one to fail.
fn explain(step: &mut Step, app: &App, report: &Report) -> Result<()> {
    let mut reasons = BTreeMap::<String, usize>::new();
    for failure in &report.failures {
        *reasons.entry(format!("{} {}", failure.method, failure.reason)).or_default() += 1;
    }
    let logged = logged(step, &app.path())?;
    let still_here: BTreeSet<_> = app.pods()?.into_iter().filter_map(|pod| pod.address).collect();
    for line in &logged {
        let endpoint = line["endpoint"].as_str().and_then(|it| it.parse::<SocketAddrV4>().ok());
        let ended = endpoint.is_some_and(|endpoint| !still_here.contains(endpoint.ip()));
        ensure!(ended, "failed at a pod that has not ended: {line}");
    }
    let shown: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
    let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    step.figures.note("rude pods: why, all at pods that had ended", shown);
    let unexplained = reasons.keys().find(|reason| *reason != "POST 502 upstream_reset");
    ensure!(unexplained.is_none(), "failures of other kinds: {reasons:?}\n{report}\n{logged:?}");
    Ok(())
}

/// The lines of Portolan's access log about failed requests of this path.
fn logged(step: &Step, path: &str) -> Result<Vec<Value>> {
    let text = step.cluster.kubectl(&["logs", "--selector", gateway::SELECTOR, "--tail=-1"])?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter(|line| line["path"].as_str().is_some_and(|it| it.starts_with(path))).collect())
}
