//! Settings and secrets: what is `live` in Portolan's ConfigMap counts within moments of the write, what is not says that
//! it needs a restart, nonsense changes nothing, and a rotated admin token needs no restart.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::{Blueprint, Pod};
use crate::apply;
use crate::cluster::{Cluster, NAMESPACE};
use crate::figures::time;
use crate::http::{self, Answer};
use crate::step::{self, Step};
use crate::traffic::{Flow, through_portolan};
use crate::watch::Watch;
use crate::{gateway, wait};

/// What the ConfigMap of `deploy/base` says.
const SETTINGS: &str = "access-log: errors\nexpose: annotated\ndrain-delay: 10s\ndrain-timeout: 30s\n";
/// From the acknowledgement of the write to the first answer that shows it.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// The kubelet brings a Secret into a pod within its sync of 10 s and half as much again; the file is looked at each 2 s.
const MOUNTED_WITHIN: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn settings_and_secrets_change_at_run_time() {
    step::run(7, "ConfigMap and Secret", |step| {
        step.changes_portolan()?;
        let app = Blueprint::named("settings").create(step)?;
        // A Service that nobody exposes.
        step.owns("service", "hidden");
        step.cluster.kubectl(&[
            "expose",
            "deployment/settings",
            "--name=hidden",
            "--port=80",
            "--target-port=8080",
        ])?;
        let flow = Flow::start(through_portolan(&app.path(), step.plan.rate))?;
        let lives = gateway::lives(step.cluster)?;
        live_settings(step)?;
        nonsense(step)?;
        restart_needed(step)?;
        deleted_and_created(step)?;
        ensure!(gateway::lives(step.cluster)? == lives, "a gateway was restarted by a change of settings");
        admin_token(step)?;
        let traffic = flow.stop()?;
        step.none_failed("while settings changed", &traffic)?;
        step.figures.note("failed meanwhile", format!("0 of {}", traffic.report.requests));
        Ok(())
    });
}

/// Asks one gateway pod, at its edge listener, whether a setting is in force.
type Probe = fn(SocketAddr) -> Result<bool>;

fn live_settings(step: &mut Step) -> Result<()> {
    let probes: [(&str, Probe); 4] = [
        ("max-headers: 8", has_few_headers),
        ("max-body-bytes: 16", has_small_bodies),
        ("expose: all", |edge| Ok(http::fetch(edge, "/hidden/")?.status == 200)),
        ("via: false", |edge| Ok(!http::fetch(edge, "/settings/")?.head.to_lowercase().contains("\nvia:"))),
    ];
    let mut slowest = Duration::ZERO;
    for (line, probe) in probes {
        let took = shown_after(step.cluster, line, probe)?;
        step.figures.note(&format!("{line} after"), time(took));
        slowest = slowest.max(took);
    }
    ensure!(slowest <= step.plan.limit(SHOWN_WITHIN), "a live setting took effect only after {slowest:?}");
    access_log(step.cluster)
}

/// More header fields than the eight that are allowed then.
fn has_few_headers(edge: SocketAddr) -> Result<bool> {
    let fields: String = (0..12).map(|number| format!("X-Field-{number}: 1\r\n")).collect();
    let request = format!("GET /settings/ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}\r\n");
    Ok(http::send(edge, &request)?.status == 431)
}

fn has_small_bodies(edge: SocketAddr) -> Result<bool> {
    let body = "seventeen bytes..";
    let head = format!(
        "POST /settings/ HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}",
        body.len()
    );
    Ok(http::send(edge, &format!("{head}\r\n\r\n{body}"))?.status == 413)
}

/// How long after the acknowledgement of the write the last gateway pod showed it.
fn shown_after(cluster: &Cluster, line: &str, probe: Probe) -> Result<Duration> {
    let edges = edges(cluster)?;
    for edge in &edges {
        ensure!(!probe(*edge)?, "{line} counts at {edge} before it was written");
    }
    shown_at(&edges, line, probe, || write_settings(cluster, &with(line)))
}

/// Asks all of them all the time while `write` writes: from its acknowledgement to when the last of them showed it.
fn shown_at(
    edges: &[SocketAddr],
    what: &str,
    probe: impl Fn(SocketAddr) -> Result<bool> + Sync,
    write: impl FnOnce() -> Result<Instant>,
) -> Result<Duration> {
    let probe = &probe;
    std::thread::scope(|scope| {
        let watchers: Vec<_> = edges
            .iter()
            .map(|edge| {
                scope.spawn(move || {
                    wait::until(&format!("{what} at {edge}"), MOUNTED_WITHIN, || {
                        Ok(probe(*edge)?.then(Instant::now))
                    })
                })
            })
            .collect();
        let acknowledged = write()?;
        let mut slowest = Duration::ZERO;
        for watcher in watchers {
            let shown = watcher.join().unwrap()?;
            slowest = slowest.max(shown.saturating_duration_since(acknowledged));
        }
        Ok(slowest)
    })
}

fn access_log(cluster: &Cluster) -> Result<()> {
    write_settings(cluster, &with("access-log: all"))?;
    wait::until("a line of the access log", Duration::from_secs(60), || {
        for edge in edges(cluster)? {
            http::fetch(edge, "/settings/seen-in-the-access-log")?;
        }
        let log = cluster.kubectl(&["logs", "--selector", gateway::SELECTOR, "--tail=5000"])?;
        Ok(log.contains("/settings/seen-in-the-access-log").then_some(()))
    })
}

/// A text that cannot be read, a value that is none, a setting that does not exist: all that was in force stays.
fn nonsense(step: &Step) -> Result<()> {
    write_settings(step.cluster, &with("max-headers: 8"))?;
    let gateways = gateway::pods(step.cluster)?;
    for gateway in &gateways {
        let edge = gateway.edge()?;
        wait::until("max-headers: 8", step.plan.limit(SHOWN_WITHIN), || {
            Ok(has_few_headers(edge)?.then_some(()))
        })?;
    }
    for (line, parts) in [
        ("max-headers: many", &["max-headers", "\"many\"", "a number from 1 to 100"][..]),
        ("max-header: 8", &["max-header", "max-headers"]),
        ("expose: [", &["portolan.yaml"]),
    ] {
        write_settings(step.cluster, &with(line))?;
        for gateway in &gateways {
            let limit = Duration::from_secs(30);
            let told = wait::until(&format!("a finding about {line:?}"), limit, || {
                let findings = gateway::findings(step.cluster, gateway).unwrap_or_default();
                Ok(findings.into_iter().find(|it| {
                    it["reason"] == "InvalidSetting" && parts.iter().all(|part| message(it).contains(part))
                }))
            })?;
            ensure!(message(&told).contains("stay as they were"), "{line:?}: {told}");
            ensure!(has_few_headers(gateway.edge()?)?, "{line:?} took away the settings in force");
            println!("step 7   {line:?}: {}", message(&told));
        }
    }
    Ok(())
}

/// A finding, and an Event on the ConfigMap for whoever looks there first.
fn restart_needed(step: &mut Step) -> Result<()> {
    let of_the_map = "involvedObject.kind=ConfigMap,involvedObject.name=portolan";
    let events = Watch::start(step.cluster, &["events", "--field-selector", of_the_map])?;
    let acknowledged = write_settings(step.cluster, &with("max-connections: 1234"))?;
    for gateway in gateway::pods(step.cluster)? {
        let limit = Duration::from_secs(30);
        let finding = gateway::finding(step.cluster, &gateway, "RestartNeeded", "max-connections", limit)?;
        ensure!(message(&finding).contains("restart the gateway"), "{finding}");
        println!("step 7   {}: {}", finding["field"], message(&finding));
    }
    let told = events.until(Duration::from_secs(120), |event| {
        let is_it = event.object["reason"] == "RestartNeeded" && event.at >= acknowledged;
        is_it.then_some(event.at)
    })?;
    step.figures.note("RestartNeeded as Event after", time(told.saturating_duration_since(acknowledged)));
    Ok(())
}

/// Without the object the settings in force stay; created again it counts again.
fn deleted_and_created(step: &mut Step) -> Result<()> {
    write_settings(step.cluster, &with("max-headers: 8"))?;
    let gateways = gateway::pods(step.cluster)?;
    step.cluster.kubectl(&["delete", "configmap", "portolan"])?;
    for gateway in &gateways {
        let limit = Duration::from_secs(30);
        let finding = gateway::finding(step.cluster, gateway, "MissingConfigMap", "portolan.yaml", limit)?;
        ensure!(has_few_headers(gateway.edge()?)?, "the settings in force went with the ConfigMap");
        println!("step 7   {}", message(&finding));
    }
    let took = shown_at(
        &edges(step.cluster)?,
        "the end of max-headers: 8",
        |edge| Ok(!has_few_headers(edge)?),
        || write_settings(step.cluster, SETTINGS),
    )?;
    step.figures.note("ConfigMap created again after", time(took));
    ensure!(
        took <= step.plan.limit(SHOWN_WITHIN),
        "the ConfigMap that was created again counted only after {took:?}"
    );
    for gateway in &gateways {
        for reason in ["MissingConfigMap", "InvalidSetting", "RestartNeeded"] {
            gateway::no_finding(step.cluster, gateway, reason, "", Duration::from_secs(30))?;
        }
    }
    Ok(())
}

/// Admin pages on the pod's own address, behind a token from a Secret that changes.
fn admin_token(step: &mut Step) -> Result<()> {
    const FIRST: &str = "the-first-token-of-the-walk";
    const SECOND: &str = "the-second-token-of-the-walk";
    let cluster = step.cluster;
    step.owns("secret", "portolan-admin");
    apply::apply(cluster, &secret(FIRST))?;
    let patch = admin_patch().to_string();
    cluster.kubectl(&["patch", "deployment", "portolan", "--type=strategic", "--patch", &patch])?;
    cluster.wait_for_rollout("portolan")?;
    let pods = gateway::pods(cluster)?;
    let lives = gateway::lives(cluster)?;
    let pages =
        pods.iter().map(|pod| Ok(SocketAddr::from((pod.address()?, 9901)))).collect::<Result<Vec<_>>>()?;
    for page in &pages {
        let without = findings(*page, None)?;
        ensure!(without.status == 401 && without.body.contains("Authorization: Bearer"), "{without:?}");
        ensure!(findings(*page, Some(SECOND))?.status == 401, "a token of nobody is let in");
        ensure!(findings(*page, Some(FIRST))?.status == 200, "the token is not let in");
    }
    let counts = |page| Ok(findings(page, Some(SECOND))?.status == 200);
    let took = shown_at(&pages, "the second token", counts, || apply::apply(cluster, &secret(SECOND)))?;
    step.figures.note("rotated admin token after", time(took));
    for page in &pages {
        ensure!(findings(*page, Some(FIRST))?.status == 401, "the token of before is still let in");
    }
    token_missing(cluster, &pods, &pages, SECOND)?;
    ensure!(gateway::lives(cluster)? == lives, "a gateway was restarted by a change of its token");
    Ok(())
}

/// The Secret is gone, and with it the file: the token that was last read counts, and a finding says so.
fn token_missing(cluster: &Cluster, pods: &[Pod], pages: &[SocketAddr], token: &str) -> Result<()> {
    cluster.kubectl(&["delete", "secret", "portolan-admin"])?;
    for (pod, page) in pods.iter().zip(pages) {
        let finding =
            wait::until(&format!("a finding about the token at {}", pod.name), MOUNTED_WITHIN, || {
                let answer = findings(*page, Some(token))?;
                ensure!(answer.status == 200, "the token went with its file: {}", answer.head);
                let findings: Vec<Value> = serde_json::from_str(&answer.body).context("/findings")?;
                Ok(findings.into_iter().find(|it| it["reason"] == "UnusableAdminToken"))
            })?;
        for part in ["/etc/portolan-admin/token cannot be read", "counts on"] {
            ensure!(message(&finding).contains(part), "{part}: {finding}");
        }
        println!("step 7   {}", message(&finding));
    }
    Ok(())
}

fn findings(page: SocketAddr, token: Option<&str>) -> Result<Answer> {
    let field = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET /findings HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{field}\r\n");
    Ok(http::send(page, &request)?)
}

fn secret(token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "portolan-admin", "namespace": NAMESPACE },
        "stringData": { "token": token },
    })
}

fn admin_patch() -> Value {
    let container = json!({
        "name": "portolan",
        "env": [
            { "name": "PORTOLAN_ADMIN", "value": "0.0.0.0:9901" },
            { "name": "PORTOLAN_ADMIN_TOKEN_FILE", "value": "/etc/portolan-admin/token" },
        ],
        "volumeMounts": [{ "name": "admin-token", "mountPath": "/etc/portolan-admin", "readOnly": true }],
    });
    let secret = json!({ "secretName": "portolan-admin", "optional": true });
    json!({ "spec": { "template": { "spec": {
        "volumes": [{ "name": "admin-token", "secret": secret }],
        "containers": [container],
    } } } })
}

/// The settings with this one line of them another.
fn with(line: &str) -> String {
    let key = line.split(':').next().unwrap_or_default();
    let others = SETTINGS.lines().filter(|other| other.split(':').next() != Some(key));
    others.chain([line]).map(|line| format!("{line}\n")).collect()
}

fn write_settings(cluster: &Cluster, text: &str) -> Result<Instant> {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "portolan", "namespace": NAMESPACE },
        "data": { "portolan.yaml": text },
    });
    apply::apply(cluster, &map)
}

fn edges(cluster: &Cluster) -> Result<Vec<SocketAddr>> {
    gateway::pods(cluster)?.iter().map(Pod::edge).collect()
}

fn message(finding: &Value) -> &str {
    finding["message"].as_str().unwrap_or_default()
}
