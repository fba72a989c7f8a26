//! An application made and exposed by plain `kubectl`, with a Service of each type: routed within a second of its first
//! ready pod, at every gateway pod.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use crate::cluster::{Cluster, node_port};
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{self, Flow};
use crate::watch::{Watch, has_condition};
use crate::{gateway, http, wait};

/// From the first ready pod, or the Service if that came later, to the first answer.
const ROUTED_WITHIN: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn created_and_exposed_by_kubectl() {
    step::run(1, "create and expose by kubectl", |step| {
        for (name, kind) in
            [("hello", "ClusterIP"), ("hello-nodeport", "NodePort"), ("hello-lb", "LoadBalancer")]
        {
            let routed = exposed(step, name, kind)?;
            step.figures.note(&format!("{kind} routed after"), time(routed));
        }
        let routed = single_pod(step)?;
        step.figures.note("single pod routed after", time(routed));
        second_port(step.cluster)
    });
}

/// A Deployment and a Service in front of it.
fn exposed(step: &mut Step, name: &str, kind: &str) -> Result<Duration> {
    step.owns("deployment", name);
    step.owns("service", name);
    let cluster = step.cluster;
    routed_after(step, name, &format!("app={name}"), || {
        let image = "--image=portolan-echo:dev";
        cluster.kubectl(&["create", "deployment", name, image, "--port=8080", "--replicas=0"])?;
        expose(cluster, &format!("deployment/{name}"), name, kind)?;
        // Last, so that the first ready pod is what the route waits for.
        cluster.kubectl(&["scale", &format!("deployment/{name}"), "--replicas=1"])?;
        Ok(())
    })
}

/// A pod without a controller.
fn single_pod(step: &mut Step) -> Result<Duration> {
    step.owns("pod", "single");
    step.owns("service", "single");
    let cluster = step.cluster;
    routed_after(step, "single", "run=single", || {
        cluster.kubectl(&["run", "single", "--image=portolan-echo:dev", "--port=8080"])?;
        expose(cluster, "pod/single", "single", "ClusterIP")
    })
}

/// `kubectl expose` has no flag for the names of ports.
fn expose(cluster: &Cluster, object: &str, name: &str, kind: &str) -> Result<()> {
    let ports = r#"{"spec":{"ports":[{"name":"http","port":80,"targetPort":8080},{"name":"management","port":9000,"targetPort":8081}]}}"#;
    let (service, kind, ports) =
        (format!("--name={name}"), format!("--type={kind}"), format!("--overrides={ports}"));
    cluster.kubectl(&["expose", object, &service, &kind, "--port=80", &ports])?;
    cluster.kubectl(&["annotate", "service", name, "portolan.dev/expose=true"])?;
    Ok(())
}

/// Asks every gateway pod all the time while `make` makes the application: how long after its first ready pod, or after
/// `make` had exposed it, the last of them answered. From then on, each request must be answered.
fn routed_after(
    step: &Step,
    name: &str,
    selector: &str,
    make: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let cluster = step.cluster;
    let watch = Watch::start(cluster, &["pods", "--selector", selector])?;
    let flows: Vec<_> = gateway::pods(cluster)?
        .iter()
        .map(|gateway| Flow::start(traffic::to(gateway.edge()?, &format!("/{name}/"), 100.0)))
        .collect::<Result<_>>()?;
    ensure!(!flows.is_empty(), "no gateway pod is ready");
    make()?;
    let made = Instant::now();
    let ready = watch
        .until(Duration::from_secs(120), |event| has_condition(&event.object, "Ready").then_some(event.at))?;
    let from = made.max(ready);
    let mut slowest = Duration::ZERO;
    for flow in &flows {
        let first =
            wait::until("a first answer", Duration::from_secs(60), || Ok(flow.book().first_answer()))?;
        slowest = slowest.max(first.ended.saturating_duration_since(from));
    }
    wait::look(Duration::from_secs(1));
    for flow in flows {
        let traffic = flow.stop()?;
        let first = traffic.book.first_answer().context("there was an answer")?;
        let failed = traffic.book.entries().iter().filter(|it| it.due > first.ended && !it.answered).count();
        ensure!(
            failed == 0,
            "{name}: {failed} requests failed after the first was answered\n{}",
            traffic.report
        );
    }
    ensure!(
        slowest <= step.plan.limit(ROUTED_WITHIN),
        "{name}: the first answer came {slowest:?} after its first ready pod"
    );
    Ok(slowest)
}

/// The port that is not named `http` has no path; callers inside the Kubernetes cluster reach it by authority.
fn second_port(cluster: &Cluster) -> Result<()> {
    let inside = (cluster.cluster_ip("portolan")?, 80).into();
    for (authority, expected) in
        [("hello:9000", 200), ("hello.service-discovery.svc:80", 200), ("hello:9001", 404)]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        let answer = http::send(inside, &request)?;
        ensure!(answer.status == expected, "{authority} inside the cluster: {} {}", answer.head, answer.body);
    }
    let outside = http::send(node_port(), "GET / HTTP/1.1\r\nHost: hello:9000\r\nConnection: close\r\n\r\n")?;
    ensure!(outside.status == 404, "the authority of a Service on the NodePort: {}", outside.head);
    Ok(())
}
