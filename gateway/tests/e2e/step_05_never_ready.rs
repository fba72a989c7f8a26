//! A rollout that never becomes ready, and one whose image does not exist: the old version serves on untouched.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::app::{App, Blueprint};
use crate::step::{self, Step};
use crate::traffic::{self, Flow, by_upstream};
use crate::wait;

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn a_rollout_that_never_becomes_ready() {
    step::run(5, "a rollout that never becomes ready", |step| {
        let app = Blueprint::named("stuck").replicas(3).rude().create(step)?;
        // Only now: its creation, too, may take longer than that.
        let patch = json!({ "spec": { "progressDeadlineSeconds": 5 } }).to_string();
        step.cluster.kubectl(&["patch", "deployment", &app.name, "--patch", &patch])?;
        let old: Vec<_> = app.pods()?.into_iter().map(|pod| pod.name).collect();
        let flow =
            Flow::start(traffic::through_portolan(&app.path(), step.plan.rate).with_posts(0.1, "order"))?;

        app.set_env("ECHO_READY_AFTER", "never")?;
        given_up(step, &app)?;
        // It runs and would answer: only that it is not ready keeps requests away.
        wait::until("a new pod that runs", Duration::from_secs(60), || {
            let new = app.pods()?.into_iter().find(|pod| !old.contains(&pod.name));
            let answers = |pod: &crate::app::Pod| {
                let address = pod.address.map(|address| (address, 8080).into());
                address
                    .is_some_and(|address| crate::http::fetch(address, "/").is_ok_and(|it| it.status == 200))
            };
            Ok(new.filter(answers))
        })?;
        wait::look(step.plan.look);
        app.set_image("portolan-echo:missing")?;
        given_up(step, &app)?;
        wait::look(step.plan.look);

        let traffic = flow.stop()?;
        step.none_failed("through Portolan", &traffic)?;
        let answered = by_upstream(&traffic.book.entries());
        step.figures.note("requests", traffic.report.requests);
        step.figures.note("failed", traffic.report.failed);
        step.figures
            .note("answered by a new pod", answered.keys().filter(|name| !old.contains(name)).count());
        ensure!(
            answered.keys().all(|name| old.contains(name)),
            "not only the old pods {old:?}: {answered:?}"
        );
        ensure!(answered.len() == old.len(), "one of the old pods {old:?} had no request: {answered:?}");
        Ok(())
    });
}

/// Returns when the Deployment says that its rollout does not get on.
fn given_up(step: &Step, app: &App) -> Result<()> {
    let condition =
        "--for=jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}=ProgressDeadlineExceeded";
    step.cluster.kubectl(&["wait", &format!("deployment/{}", app.name), condition, "--timeout=120s"])?;
    Ok(())
}
