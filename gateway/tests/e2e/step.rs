//! One step of the walk: its figures, what it made and has to remove, what to print when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Context as _, Result, bail};
use portolan_testbed::Figures;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{Cluster, cluster};
use crate::figures::publish;
use crate::gateway;
use crate::plan::Plan;
use crate::traffic::Traffic;

/// A step at work.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) cluster: &'static Cluster,
    pub(crate) plan: Plan,
    pub(crate) figures: Figures,
    /// What is to be removed, as `kind/name`.
    made: Vec<String>,
    /// The pod template of Portolan's Deployment that is to be put back.
    template: Option<Value>,
}

/// Runs a step in the shared cluster: begins with Portolan ready, removes what was made, and prints for the person on
/// call what there is to see if it fails.
///
/// # Panics
/// When the step fails, or Portolan is not ready at its beginning.
pub(crate) fn run(number: u32, title: &str, body: impl FnOnce(&mut Step) -> Result<()>) {
    let cluster = cluster().unwrap_or_else(|error| panic!("step {number}, the cluster: {error:#}"));
    cluster.wait_for_rollout("portolan").unwrap_or_else(|error| {
        diagnose(cluster);
        panic!("step {number}, Portolan is not ready at its beginning: {error:#}")
    });
    let plan = Plan::of_this_run();
    let mut step = Step {
        cluster,
        plan,
        figures: Figures::new(number, title, plan.full),
        made: Vec::new(),
        template: None,
    };
    let begun = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut step)));
    if !matches!(result, Ok(Ok(()))) {
        diagnose(cluster);
    }
    let removed = step.remove_all();
    match result {
        Ok(Ok(())) => {
            removed.unwrap_or_else(|error| panic!("step {number}: what it made stays behind: {error:#}"));
            publish(step.figures, begun.elapsed()).unwrap();
        }
        Ok(Err(error)) => panic!("step {number}, {title}: {error:#}"),
        Err(panic) => resume_unwind(panic),
    }
}

impl Step {
    /// Removes the object at the end, whatever comes of the step. Of pods that a controller made, name the controller.
    pub(crate) fn owns(&mut self, kind: &str, name: &str) {
        self.made.push(format!("{kind}/{name}"));
    }

    /// To be called before Portolan's own objects are changed: at the end they are put back as `deploy/` has them.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) fn changes_portolan(&mut self) -> Result<()> {
        let mut deployment = self.cluster.json(&["deployment", "portolan"])?;
        self.template = Some(deployment["spec"]["template"].take());
        Ok(())
    }

    /// An error that lists the failures, unless no request of `traffic` failed.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn none_failed(&self, what: &str, traffic: &Traffic) -> Result<()> {
        let report = &traffic.report;
        if report.requests == 0 {
            bail!("{what}: no request was sent");
        }
        if report.failed > 0 {
            bail!("{what}: {} of {} requests failed\n{report}", report.failed, report.requests);
        }
        Ok(())
    }

    /// Pods die at once: nobody asks for them any more.
    fn remove_all(&mut self) -> Result<()> {
        self.put_portolan_back().context("putting Portolan back as it was")?;
        if self.made.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.made.drain(..).rev().collect();
        let mut arguments = vec!["delete", "--ignore-not-found", "--cascade=foreground", "--timeout=60s"];
        arguments.extend(names.iter().map(String::as_str));
        self.cluster.kubectl(&arguments).context("removing what the step made")?;
        Ok(())
    }

    fn put_portolan_back(&mut self) -> Result<()> {
        let Some(template) = self.template.take() else { return Ok(()) };
        let patch = json!([{ "op": "replace", "path": "/spec/template", "value": template }]).to_string();
        self.cluster.kubectl(&["patch", "deployment", "portolan", "--type=json", "--patch", &patch])?;
        self.cluster.deploy()
    }
}

/// What the person on call would ask for first.
fn diagnose(cluster: &Cluster) {
    let show = |title: &str, arguments: &[&str]| {
        let text = cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        println!("--- {title}\n{}", text.trim_end());
    };
    show("pods", &["get", "pods", "--output=wide"]);
    show("endpoints", &["get", "services,endpointslices", "--output=wide"]);
    show("events, latest last", &["get", "events", "--sort-by=.lastTimestamp"]);
    show("Portolan", &["logs", "--selector", gateway::SELECTOR, "--prefix", "--tail=60"]);
    for gateway in gateway::pods(cluster).unwrap_or_default() {
        let findings = gateway.admin(cluster, "/findings").map(|answer| answer.body);
        println!(
            "--- findings of {}\n{}",
            gateway.name,
            findings.unwrap_or_else(|error| format!("{error:#}"))
        );
    }
}
