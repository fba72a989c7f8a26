//! Portolan's own life under load: rolled out, scaled, and one of its processes killed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portolan_loadtest::load::{Failure, FailureKind, Load, Report};
use serde_json::Value;
use tokio::time::Instant;

use crate::app::{self, App, Blueprint, Pod};
use crate::cluster::NAMESPACE;
use crate::figures::time;
use crate::kept::Kept;
use crate::step::{self, Step};
use crate::traffic::{self, Flow};
use crate::watch::Watch;
use crate::{gateway, http, wait};

/// An answer takes this long, so that there is always something under way at a gateway that ends.
const LATENCY: Duration = Duration::from_millis(50);
/// Clients that send a request now and then, each on a connection that it keeps as long as it is let.
const SLOW_CLIENTS: usize = 8;

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn the_gateways_own_life() {
    step::run(8, "Portolan restarted, scaled, killed", |step| {
        let app = Blueprint::named("steady").well_behaved().replicas(2).latency(LATENCY).create(step)?;
        rolled_out_and_scaled(step, &app)?;
        killed(step, &app)
    });
}

/// Half of the requests open a connection, so that kept ones and new ones meet every moment of a rollout.
fn load(step: &Step, app: &App) -> Load {
    let load = traffic::through_portolan(&app.path(), step.plan.rate).with_posts(0.2, "order");
    Load { new_connections: 0.5, connections: 16, ..load }
}

fn rolled_out_and_scaled(step: &mut Step, app: &App) -> Result<()> {
    let flow = Flow::start(load(step, app))?;
    let kept = Kept::start(SLOW_CLIENTS, &app.path());
    let before = names(step)?;
    for _ in 0..step.plan.own_rollouts {
        step.cluster.kubectl(&["rollout", "restart", "deployment/portolan"])?;
        step.cluster.wait_for_rollout("portolan")?;
    }
    for replicas in ["--replicas=3", "--replicas=2"] {
        step.cluster.kubectl(&["scale", "deployment/portolan", replicas])?;
        step.cluster.wait_for_rollout("portolan")?;
    }
    let after = drained(step)?;
    ensure!(before.is_disjoint(&after), "a gateway pod survived its rollout: {before:?}, {after:?}");
    let (traffic, kept) = (flow.stop()?, kept.stop());
    let report = &traffic.report;
    step.figures.note("rollouts", step.plan.own_rollouts);
    let (old, new) = (&report.kept_connections, &report.new_connections);
    step.figures.note("requests on kept/new connections", format!("{}/{}", old.requests, new.requests));
    step.figures.note("failed", format!("{}/{}", old.failed, new.failed));
    step.figures.note("kept connections told to close", kept.told);
    step.figures.note("kept connections cut", kept.cut.len());
    step.none_failed("through Portolan", &traffic)?;
    ensure!(kept.cut.is_empty(), "kept connections were cut without a word: {:?}", kept.cut);
    ensure!(kept.told > 0, "no kept connection was told to close in all these rollouts");
    Ok(())
}

fn names(step: &Step) -> Result<BTreeSet<String>> {
    Ok(gateway::pods(step.cluster)?.into_iter().map(|pod| pod.name).collect())
}

/// Returns when the last old gateway pod has drained and is gone.
fn drained(step: &Step) -> Result<BTreeSet<String>> {
    wait::until("two gateway pods and no other", Duration::from_secs(180), || {
        let (all, ready) = (app::pods(step.cluster, gateway::SELECTOR)?.len(), names(step)?);
        Ok((all == 2 && ready.len() == 2).then_some(ready))
    })
}

/// A gateway's process is killed with -9. What was under way there is lost; until kube-proxy hears of it, or the process
/// is back, new connections are sent there and refused.
fn killed(step: &mut Step, app: &App) -> Result<()> {
    let victim = gateway::pods(step.cluster)?.into_iter().next().context("a gateway pod")?;
    let edge = victim.edge()?;
    let process = step.cluster.control_plane().container_pid(NAMESPACE, &victim.name, "portolan")?;
    let watch = Watch::start(
        step.cluster,
        &["endpointslices", "--selector=kubernetes.io/service-name=portolan-edge"],
    )?;
    watch.until(Duration::from_secs(60), |event| is_ready(&event.object, &victim).filter(|it| *it))?;
    let flow = Flow::start(load(step, app))?;
    wait::look(Duration::from_secs(2));

    let killed = Instant::now();
    kill(process)?;
    let dead = wait::until("its process to be gone", Duration::from_secs(30), || {
        Ok(has_ended(process).then(Instant::now))
    })?;
    let serves = wait::until("an answer of the restarted gateway", Duration::from_secs(120), || {
        Ok(http::fetch(edge, &app.path()).ok().filter(|answer| answer.status == 200).map(|_| Instant::now()))
    })?;
    let out = watch.until(Duration::from_secs(60), |event| {
        is_ready(&event.object, &victim).and_then(|ready| (!ready).then_some(event.at))
    })?;
    let back = watch.until(Duration::from_secs(60), |event| {
        is_ready(&event.object, &victim).and_then(|ready| ready.then_some(event.at))
    })?;
    wait::look(step.plan.look);
    let report = flow.stop()?.report;

    let kinds = Kinds::of(&report, killed, dead + step.plan.apart());
    let refused_for = kinds.refused.iter().map(|it| report.start + it.due).max();
    step.figures.note("killed: requests", report.requests);
    step.figures.note("killed: failed in flight", kinds.in_flight.len());
    let connections: BTreeSet<_> = kinds.in_flight.iter().filter_map(|it| it.local_port).collect();
    ensure!(connections.len() == kinds.in_flight.len(), "more than one failed on a connection\n{report}");
    step.figures.note("killed: new connections refused", kinds.refused.len());
    let refused_for = refused_for.map_or(Duration::ZERO, |last| last.saturating_duration_since(killed));
    step.figures.note("killed: refused for", time(refused_for));
    step.figures.note("killed: out of the Service after", time(out - killed));
    step.figures.note("killed: serves again after", time(serves - killed));
    step.figures.note("killed: back in the Service after", time(back - killed));
    ensure!(kinds.others.is_empty(), "failed otherwise: {:?}\n{report}", kinds.others);
    Ok(())
}

/// The failures after a kill, told apart.
struct Kinds<'a> {
    /// Sent before its client could know that the process was dead, and no answer, or a part of one, came.
    in_flight: Vec<&'a Failure>,
    /// Nobody listened where kube-proxy sent the connection.
    refused: Vec<&'a Failure>,
    others: Vec<&'a Failure>,
}

impl Kinds<'_> {
    /// A client on a busy machine hears some time after the death that its connection is closed, and may have sent a
    /// request on it before `heard`.
    fn of(report: &Report, killed: Instant, heard: Instant) -> Kinds<'_> {
        let mut kinds = Kinds { in_flight: Vec::new(), refused: Vec::new(), others: Vec::new() };
        for failure in &report.failures {
            let (due, at) = (report.start + failure.due, report.start + failure.at);
            let cut = matches!(failure.kind, FailureKind::Reset | FailureKind::MidBody);
            if cut && due <= heard && killed <= at {
                kinds.in_flight.push(failure);
            } else if failure.kind == FailureKind::ConnectRefused && killed <= at {
                kinds.refused.push(failure);
            } else {
                kinds.others.push(failure);
            }
        }
        kinds
    }
}

/// Whether an EndpointSlice says that this pod is ready, if it names it.
fn is_ready(slice: &Value, pod: &Pod) -> Option<bool> {
    let endpoints = slice["endpoints"].as_array()?;
    let own = endpoints.iter().find(|it| it["targetRef"]["name"] == pod.name.as_str())?;
    own["conditions"]["ready"].as_bool()
}

fn kill(process: i32) -> Result<()> {
    let status = std::process::Command::new("kill").args(["-9", &process.to_string()]).status()?;
    ensure!(status.success(), "kill -9 {process}: {status}");
    Ok(())
}

/// Whether a process has ended with all of its threads, also if nobody has asked for its end yet. Its sockets are closed
/// by the last of its threads, which may go after the first.
fn has_ended(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    threads <= 1 && stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}
