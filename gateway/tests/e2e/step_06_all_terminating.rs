//! Every pod of an application is terminating and still serves, one longer than the other: they serve on (KEP-1669), and
//! no request fails until the last is gone. Beside it kube-proxy, which does the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use crate::cluster::{Cluster, NAMESPACE};
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{Both, Callers, Traffic, by_upstream};
use crate::watch::Watch;
use crate::{http, wait};

/// How long after SIGTERM each pod serves, in seconds.
const SERVES: [u64; 3] = [3, 5, 7];

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn all_pods_terminating_and_still_serving() {
    step::run(6, "all pods terminating but still serving", |step| {
        let cluster = step.cluster;
        create(step)?;
        let rate = step.plan.rate;
        let callers = Callers::start(cluster, "leaving", rate, |load| load)?;
        wait::look(Duration::from_secs(1));

        let watch = Watch::start(cluster, &["pods", "--selector=app=leaving"])?;
        let told = Instant::now();
        cluster.kubectl(&["delete", "pods", "--selector=app=leaving", "--wait=false"])?;
        let mut gone = 0;
        watch.until(Duration::from_secs(60), |event| {
            gone += usize::from(event.kind == "DELETED");
            (gone == SERVES.len()).then_some(())
        })?;
        // Only now there is nobody left, and Portolan says so.
        wait::until("503 without any pod", step.plan.limit(Duration::from_secs(1)), || {
            Ok((http::fetch(crate::cluster::node_port(), "/leaving/")?.status == 503).then_some(()))
        })?;

        let Both { portolan, kube_proxy } = callers.stop()?;
        let (served, early) = until_the_last(step, &portolan, told)?;
        let (served_by_kube_proxy, early_by_kube_proxy) = until_the_last(step, &kube_proxy, told)?;
        step.figures.beside("served on for", time(served), time(served_by_kube_proxy));
        step.figures.beside("failed before the last pod was gone", early, early_by_kube_proxy);
        step.figures.beside("waited over 1 s", portolan.report.slow, kube_proxy.report.slow);
        ensure!(early == 0, "{early} requests failed while a pod still served\n{}", portolan.report);
        let whole = Duration::from_secs(SERVES[2]);
        ensure!(served >= whole, "the last pod serves for {whole:?}, the last answer came after {served:?}");
        let all = by_upstream(&portolan.book.due_between(told, told + served));
        ensure!(all.len() == SERVES.len(), "not every terminating pod was asked: {all:?}");
        Ok(())
    });
}

/// Pods without a controller, so that nothing takes their place, and a Service.
fn create(step: &mut Step) -> Result<()> {
    let cluster: &Cluster = step.cluster;
    step.owns("service", "leaving");
    for seconds in SERVES {
        let name = format!("leaving-{seconds}");
        step.owns("pod", &name);
        let pod = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app": "leaving" } },
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "echo",
                    "image": "portolan-echo:v1",
                    "imagePullPolicy": "Never",
                    "env": [{ "name": "ECHO_ON_TERM", "value": format!("delay={seconds}s,finish") }],
                    "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1, "timeoutSeconds": 10 },
                }],
            },
        });
        cluster.control_plane().apply(&pod.to_string())?;
    }
    cluster.kubectl(&[
        "expose",
        "pod",
        "leaving-3",
        "--name=leaving",
        "--selector=app=leaving",
        "--port=80",
        "--target-port=8080",
    ])?;
    cluster.kubectl(&["annotate", "service", "leaving", "portolan.dev/expose=true"])?;
    cluster.kubectl(&[
        "wait",
        "pods",
        "--selector=app=leaving",
        "--for=condition=Ready",
        "--timeout=120s",
    ])?;
    wait::until("a route to it", Duration::from_secs(60), || {
        Ok(http::fetch(crate::cluster::node_port(), "/leaving/").ok().filter(|answer| answer.status == 200))
    })?;
    Ok(())
}

/// How long after `told` the last answer came, and how many requests failed before that. What the last pod cuts while it
/// ends is its end.
fn until_the_last(step: &Step, traffic: &Traffic, told: Instant) -> Result<(Duration, usize)> {
    let end = step.plan.apart();
    let entries = traffic.book.entries();
    let last =
        entries.iter().filter(|it| it.answered).map(|it| it.ended).max().context("some were answered")?;
    let early = entries.iter().filter(|it| !it.answered && it.ended + end < last).count();
    Ok((last.saturating_duration_since(told), early))
}
