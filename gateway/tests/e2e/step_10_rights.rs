//! Rights, tokens and namespaces that are taken away and come back: what is known serves on, what is missing is named, and
//! nothing needs a restart.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::{App, Blueprint, Pod};
use crate::apply;
use crate::cluster::{Cluster, NAMESPACE, node_port};
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{Flow, through_portolan};
use crate::watch::{Watch, has_condition};
use crate::{gateway, http, wait};

/// A watch that is open is asked no questions: a right that is gone is missed when it is next opened, after 50 s at most, and some
/// time.
const MISSED_WITHIN: Duration = Duration::from_secs(120);
/// The longest wait between two attempts of a watch that is denied, and some time for the attempt.
const BACK_WITHIN: Duration = Duration::from_secs(12);
/// The same of one whose token is not accepted, from the new token on.
const TOKEN_WITHIN: Duration = Duration::from_secs(4);
/// The namespace that comes and goes.
const SHOP: &str = "shop";

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn rights_tokens_and_namespaces_come_and_go() {
    step::run(10, "rights, tokens, namespaces", |step| {
        step.changes_portolan()?;
        let app = Blueprint::named("rights").create(step)?;
        let flow = Flow::start(through_portolan(&app.path(), step.plan.rate))?;
        let lives = gateway::lives(step.cluster)?;
        right_taken_away(step, &app, &flow)?;
        token_rotated(step, &app, &flow)?;
        ensure!(gateway::lives(step.cluster)? == lives, "a gateway was restarted");
        app_recreated(step)?;
        ensure!(gateway::lives(step.cluster)? == lives, "a gateway was restarted");
        let result = namespace_recreated(step);
        // Whatever came of it, it is not to be there for the next step.
        let removed =
            step.cluster.kubectl(&["delete", "namespace", SHOP, "--ignore-not-found", "--timeout=120s"]);
        result?;
        removed?;
        let traffic = flow.stop()?;
        step.none_failed("while rights, tokens and namespaces came and went", &traffic)?;
        step.figures.note("failed meanwhile", format!("0 of {}", traffic.report.requests));
        Ok(())
    });
}

/// The right to endpointslices goes and comes back.
fn right_taken_away(step: &mut Step, app: &App, flow: &Flow) -> Result<()> {
    let (cluster, gateways) = (step.cluster, gateway::pods(step.cluster)?);
    remove_rule(cluster, "endpointslices")?;
    let taken = Instant::now();
    if !step.plan.full {
        // Its end closes every watch, which is waited for in the full form.
        cluster.control_plane().kill_api_server();
        cluster.control_plane().restart_api_server()?;
    }
    let field = format!("endpointslices.discovery.k8s.io in namespace {NAMESPACE}");
    for gateway in &gateways {
        let finding = gateway::finding(cluster, gateway, "AccessDenied", &field, MISSED_WITHIN)?;
        let parts =
            ["may not list and watch endpointslices.discovery.k8s.io", "serves on", "Grant", "deploy/base"];
        for part in parts {
            ensure!(message(&finding).contains(part), "{part}: {finding}");
        }
        println!("step 10  {}: {}", finding["field"], message(&finding));
        let ready = gateway.status("/readyz")?;
        ensure!(ready.status == 200, "a missing right took the gateway out of service: {}", ready.body);
    }
    step.figures.note("missing right told after", time(taken.elapsed()));
    let before = app.pods()?;
    app.scale(2)?;
    app.wait_for_rollout()?;
    let added = new_pod(app, &before)?;
    wait::look(step.plan.look);
    ensure!(!serves(flow, &added), "the gateway follows slices that it may not read");
    let granted = give_rights_back(cluster)?;
    let limit = step.plan.limit(BACK_WITHIN);
    let back = wait::until("requests at the new pod", limit * 2, || first_at(flow, &added))?;
    let took = back.saturating_duration_since(granted);
    step.figures.note("changes seen after the right is back", time(took));
    ensure!(took <= limit, "changes were seen only {took:?} after the right was back");
    for gateway in &gateways {
        gateway::no_finding(cluster, gateway, "AccessDenied", &field, limit)?;
    }
    one_pod_again(app, &gateways)
}

/// Back to one pod, and every gateway knows: what it has not heard when the API server goes, it does not hear until later.
fn one_pod_again(app: &App, gateways: &[Pod]) -> Result<()> {
    app.scale(1)?;
    wait::until("one pod alone", Duration::from_secs(90), || Ok((app.pods()?.len() == 1).then_some(())))?;
    for gateway in gateways {
        wait::until(
            &format!("{} to know no leaving endpoint", gateway.name),
            Duration::from_secs(30),
            || Ok((gateway.metric("portolan_endpoints", "draining")? < 1.0).then_some(())),
        )?;
    }
    Ok(())
}

/// Every token made so far is refused; the kubelet writes new ones.
fn token_rotated(step: &mut Step, app: &App, flow: &Flow) -> Result<()> {
    let (cluster, gateways) = (step.cluster, gateway::pods(step.cluster)?);
    let before = gateways.iter().map(|gateway| token(cluster, gateway)).collect::<Result<Vec<_>>>()?;
    let open = gateways.iter().map(watches).collect::<Result<Vec<_>>>()?;
    cluster.control_plane().rotate_service_account_key()?;
    for gateway in &gateways {
        let limit = Duration::from_secs(60);
        let finding = gateway::finding(cluster, gateway, "Unauthenticated", "services", limit)?;
        for part in ["does not accept Portolan's credentials", "401", "new token"] {
            ensure!(message(&finding).contains(part), "{part}: {finding}");
        }
        println!("step 10  {}: {}", finding["field"], message(&finding));
        ensure!(gateway.status("/readyz")?.status == 200, "a refused token took the gateway out of service");
    }
    cluster.control_plane().kill_kubelet();
    let slowest = std::thread::scope(|scope| {
        let watchers: Vec<_> = gateways
            .iter()
            .zip(before.iter().zip(&open))
            .map(|(gateway, (before, open))| scope.spawn(move || back_after(cluster, gateway, before, *open)))
            .collect();
        cluster.control_plane().restart_kubelet()?;
        watchers
            .into_iter()
            .try_fold(Duration::ZERO, |slowest, watcher| anyhow::Ok(slowest.max(watcher.join().unwrap()?)))
    })?;
    step.figures.note("back after the new token", time(slowest));
    ensure!(
        slowest <= step.plan.limit(TOKEN_WITHIN),
        "back only {slowest:?} after the new token was in its file"
    );
    for gateway in &gateways {
        gateway::no_finding(cluster, gateway, "Unauthenticated", "", Duration::from_secs(60))?;
    }
    // Changes are followed again.
    let before = app.pods()?;
    app.scale(2)?;
    app.wait_for_rollout()?;
    let added = new_pod(app, &before)?;
    wait::until("requests at the new pod", Duration::from_secs(30), || first_at(flow, &added))?;
    one_pod_again(app, &gateways)
}

/// From the new token in the file of this pod until all its watches are open.
fn back_after(cluster: &Cluster, gateway: &Pod, before: &str, open: f64) -> Result<Duration> {
    let written = wait::until("a new token", Duration::from_secs(120), || {
        Ok((token(cluster, gateway)? != before).then(Instant::now))
    })?;
    wait::until("open watches", Duration::from_secs(90), || {
        Ok((watches(gateway)? >= open).then(|| written.elapsed()))
    })
}

/// The token as it stands in the pod's file, read past the kubelet.
fn token(cluster: &Cluster, gateway: &Pod) -> Result<String> {
    let process = cluster.control_plane().container_pid(NAMESPACE, &gateway.name, "portolan")?;
    let path = format!("/proc/{process}/root/var/run/secrets/kubernetes.io/serviceaccount/token");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn watches(gateway: &Pod) -> Result<f64> {
    gateway.metric("portolan_watch_open", "")
}

/// An application in Portolan's own namespace, deleted and made again from the same manifests.
fn app_recreated(step: &mut Step) -> Result<()> {
    let first = Blueprint::named("again").create(step)?;
    let path = first.path();
    step.cluster.kubectl(&["delete", "deployment/again", "service/again", "--cascade=foreground"])?;
    wait::until("404 without the Service", Duration::from_secs(30), || {
        Ok((http::fetch(node_port(), &path)?.status == 404).then_some(()))
    })?;
    let ready = Watch::start(step.cluster, &["pods", "--selector", &first.selector()])?;
    let flow = Flow::start(through_portolan(&path, 50.0))?;
    Blueprint::named("again").create(step)?;
    let took = answered_after(&ready, &flow, "again")?;
    step.figures.note("application made again, routed after", time(took));
    ensure!(
        took <= step.plan.limit(Duration::from_secs(1)),
        "routed only {took:?} after its first ready pod"
    );
    Ok(())
}

/// A second namespace with its right and an application, deleted as a whole and made again.
fn namespace_recreated(step: &mut Step) -> Result<()> {
    let cluster = step.cluster;
    create_shop(cluster)?;
    let watched = format!("PORTOLAN_NAMESPACES={NAMESPACE},{SHOP}");
    cluster.kubectl(&["set", "env", "deployment/portolan", &watched])?;
    cluster.wait_for_rollout("portolan")?;
    let (gateways, lives) = (gateway::pods(cluster)?, gateway::lives(cluster)?);
    let path = format!("/{SHOP}/orders/");
    wait_for_status(&path, 200, Duration::from_secs(60))?;
    cluster.kubectl(&["delete", "namespace", SHOP, "--timeout=180s"])?;
    let deleted = Instant::now();
    wait_for_status(&path, 404, step.plan.limit(Duration::from_secs(2)))?;
    for gateway in &gateways {
        let field = format!("namespaces in namespace {SHOP}");
        let finding = gateway::finding(cluster, gateway, "AccessDenied", &field, Duration::from_secs(60))?;
        for part in ["may not get namespaces", "deleted", "namespaces setting"] {
            ensure!(message(&finding).contains(part), "{part}: {finding}");
        }
        println!("step 10  {}: {}", finding["field"], message(&finding));
    }
    if step.plan.full {
        // Until every watch of it has been opened anew, and denied.
        let field = format!("services in namespace {SHOP}");
        for gateway in &gateways {
            gateway::finding(cluster, gateway, "AccessDenied", &field, MISSED_WITHIN)?;
        }
    }
    step.figures.note("namespace away for", time(deleted.elapsed()));
    let flow = Flow::start(through_portolan(&path, 50.0))?;
    create_shop(cluster)?;
    // In its namespace, which was not there before.
    let ready = Watch::start(cluster, &[&format!("--namespace={SHOP}"), "pods", "--selector", "app=orders"])?;
    let took = answered_after(&ready, &flow, "the namespace")?;
    step.figures.note("namespace made again, routed after", time(took));
    let limit = step.plan.limit(BACK_WITHIN);
    ensure!(took <= limit, "routed only {took:?} after its first ready pod");
    for gateway in &gateways {
        gateway::no_finding(cluster, gateway, "AccessDenied", SHOP, limit + Duration::from_secs(5))?;
    }
    ensure!(gateway::lives(cluster)? == lives, "a gateway was restarted");
    Ok(())
}

/// How long after the first ready pod the first request was answered.
fn answered_after(ready: &Watch, flow: &Flow, what: &str) -> Result<Duration> {
    let ready = ready
        .until(Duration::from_secs(120), |event| has_condition(&event.object, "Ready").then_some(event.at))?;
    let answered = wait::until(&format!("an answer of {what}"), Duration::from_secs(90), || {
        Ok(flow.book().first_answer().map(|entry| entry.ended))
    })?;
    Ok(answered.saturating_duration_since(ready))
}

fn wait_for_status(path: &str, status: u16, limit: Duration) -> Result<()> {
    wait::until(&format!("{status} for {path}"), limit, || {
        Ok(http::fetch(node_port(), path).is_ok_and(|answer| answer.status == status).then_some(()))
    })
}

/// The namespace, the right to read it as `deploy/` has it, and an application.
fn create_shop(cluster: &Cluster) -> Result<()> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SHOP } });
    cluster.control_plane().apply(&namespace.to_string())?;
    let access = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/namespace-access");
    let own = format!("--namespace={SHOP}");
    cluster.control_plane().kubectl(&["apply", &own, "-k", access])?;
    let labels = json!({ "app": "orders" });
    let container = json!({
        "name": "echo",
        "image": "portolan-echo:v1",
        "imagePullPolicy": "Never",
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1, "timeoutSeconds": 10 },
    });
    let pod = json!({ "terminationGracePeriodSeconds": 1, "containers": [container] });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "orders", "namespace": SHOP },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "orders", "namespace": SHOP, "annotations": { "portolan.dev/expose": "true" } },
        "spec": { "selector": labels, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    });
    cluster.control_plane().apply(&format!("{service}\n---\n{deployment}\n"))
}

/// Takes the rule about a resource out of Portolan's Role.
fn remove_rule(cluster: &Cluster, resource: &str) -> Result<()> {
    let role = cluster.json(&["role", "portolan"])?;
    let rules = role["rules"].as_array().context("the Role has rules")?;
    let names = |rule: &Value| rule["resources"].as_array().is_some_and(|it| it.contains(&json!(resource)));
    let index = rules.iter().position(names).with_context(|| format!("no rule about {resource}"))?;
    let patch = json!([{ "op": "remove", "path": format!("/rules/{index}") }]).to_string();
    cluster.kubectl(&["patch", "role", "portolan", "--type=json", "--patch", &patch])?;
    Ok(())
}

/// The Role as `deploy/base` has it; when that was acknowledged.
fn give_rights_back(cluster: &Cluster) -> Result<Instant> {
    let role = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/role.yaml");
    apply::write(cluster, &["apply", "-f", role])
}

fn new_pod(app: &App, before: &[Pod]) -> Result<String> {
    let is_new = |pod: &Pod| before.iter().all(|old| old.name != pod.name);
    let added = app.pods()?.into_iter().find(is_new);
    added.map(|pod| pod.name).with_context(|| format!("{} has no new pod", app.name))
}

fn serves(flow: &Flow, pod: &str) -> bool {
    flow.book().entries().iter().any(|entry| entry.upstream.as_deref() == Some(pod))
}

fn first_at(flow: &Flow, pod: &str) -> Result<Option<Instant>> {
    let entries = flow.book().entries();
    Ok(entries.iter().find(|entry| entry.upstream.as_deref() == Some(pod)).map(|entry| entry.ended))
}

fn message(finding: &Value) -> &str {
    finding["message"].as_str().unwrap_or_default()
}
