//! Pods that die, crash again and again, stop being ready or hang: how many requests fail or wait, and for how long,
//! through Portolan and at the same time straight to the same Service by kube-proxy.
//!
//! **What is fair to kube-proxy.** It balances connections and not requests. Both sides get the same rate and the same
//! mix, four in five requests on kept connections and one on a new connection each. There are so many kept connections
//! that kube-proxy's choice for each of them comes near to an even share, and that a request that waits holds up no
//! other. A failure on a kept connection that most clients would repeat by themselves is counted apart.

mod dead;
mod hung;
mod unready;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portolan_loadtest::load::{Load, Report};

use crate::app::{App, Pod};
use crate::figures::time;
use crate::http;
use crate::step::Step;
use crate::traffic::{Both, Callers, Flow, by_upstream};
use crate::wait;

/// An answer takes this long, so that there is something under way at a pod that dies.
const LATENCY: Duration = Duration::from_millis(20);
/// So long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the same load both ways, with this share of POST, and returns when every pod has answered both.
fn call(step: &Step, app: &App, posts: f64) -> Result<Callers> {
    let rate = step.plan.rate;
    let callers = Callers::start(step.cluster, &app.name, rate, |load| Load {
        connections: (1.5 * rate) as usize,
        timeout: PATIENCE,
        ..load.with_posts(posts, "order")
    })?;
    let pods = app.pods()?.len();
    wait::until("an answer of every pod both ways", Duration::from_secs(60), || {
        let all = |flow: &Flow| by_upstream(&flow.book().entries()).len() >= pods;
        Ok((all(&callers.portolan) && all(&callers.kube_proxy)).then_some(()))
    })?;
    Ok(callers)
}

/// Watches the load for a while more, and stops it.
fn stop(step: &Step, callers: Callers) -> Result<Both> {
    wait::look(step.plan.look);
    callers.stop()
}

impl Both {
    /// Notes what failed, side by side.
    fn note(&self, step: &mut Step, fault: &str) {
        step.figures.beside(
            &format!("{fault}: failed"),
            failed(&self.portolan.report),
            failed(&self.kube_proxy.report),
        );
    }

    /// An error unless every request through Portolan that may be repeated was answered.
    fn no_idempotent_failed(&self, fault: &str) -> Result<()> {
        let report = &self.portolan.report;
        ensure!(report.idempotent.requests > 0, "{fault}: no request was sent");
        ensure!(report.idempotent.failed == 0, "{fault}: GETs failed through Portolan\n{report}");
        Ok(())
    }
}

/// How many failed of each method, how long from the first to the last, and how many of them most clients repeat.
fn failed(report: &Report) -> String {
    if report.failed == 0 {
        return format!("0 of {}", report.requests);
    }
    let repeated = match report.retriable {
        0 => String::new(),
        count => format!(", {count} that most clients repeat"),
    };
    format!(
        "GET {}, POST {} of {} in {}{repeated}",
        report.idempotent.failed,
        report.not_idempotent.failed,
        report.requests,
        time(report.bad_for()),
    )
}

/// Any of its pods that are ready.
fn victim(app: &App) -> Result<Pod> {
    let pods = app.pods()?;
    pods.into_iter().find(|pod| pod.ready && !pod.terminating).context("no pod is ready")
}

/// Turns a pod's switches.
fn turn(pod: &Pod, switches: &str) -> Result<()> {
    let request = format!("PUT /switches?{switches} HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n");
    let answer = http::send((pod.address()?, 8080).into(), &request)?;
    ensure!(answer.status < 300, "the switches {switches} of {}: {} {}", pod.name, answer.head, answer.body);
    Ok(())
}

/// Returns when the pod answers by itself, past every Service.
fn answers(pod: &Pod, limit: Duration) -> Result<()> {
    let address = (pod.address()?, 8080).into();
    wait::until(&format!("an answer of {}", pod.name), limit, || {
        Ok(http::fetch(address, "/").ok().filter(|answer| answer.status == 200).map(drop))
    })
}
