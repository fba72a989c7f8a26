//! What drives the cluster is away: etcd, the kubelet, the API server. Traffic goes on, what dies meanwhile is left out,
//! a gateway that is started meanwhile serves from its snapshot file, and afterwards changes flow again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use crate::app::{App, Blueprint, Pod};
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{Both, Callers, Traffic, by_upstream};
use crate::watch::Watch;
use crate::{gateway, http, wait};

/// The application during the API server's absence.
const APP: &str = "outlasting";
const LATENCY: Duration = Duration::from_millis(20);
/// The kubelet needs no API server to start a container again, and waits up to 10 s before it does so a second time.
const CONTAINER_STARTS: Duration = Duration::from_secs(120);
/// So soon after the return every gateway is in touch and a change is in use.
const RIGHT_AGAIN: Duration = Duration::from_secs(10);

/// What happened while the API server was away.
struct Outage {
    /// A pod of the application was left out by every gateway from then on, and until then.
    left_out: (Instant, Instant),
    /// A gateway container was killed then, and served again then.
    gateway_away: (Instant, Instant),
}

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn etcd_restarted() {
    step::run(9, "the control plane away", |step| {
        let app = app("steady", step)?;
        let callers = call(step, &app)?;
        let control_plane = step.cluster.control_plane();

        let begun = Instant::now();
        control_plane.restart_etcd()?;
        step.figures.note("etcd away for", time(begun.elapsed()));
        let after = changes_flow(step, &app, &callers, 4)?;
        step.figures.note("after etcd: a new pod asked", time(after));

        let Both { portolan, kube_proxy } = stop(step, callers)?;
        let what = format!("etcd restarted: failed, of {}", portolan.report.requests);
        step.figures.beside(&what, portolan.report.failed, kube_proxy.report.failed);
        step.none_failed("etcd restarted", &portolan)
    });
}

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn api_server_away_and_kubelet_restarted() {
    step::run(9, "the control plane away", |step| {
        let app = app(APP, step)?;
        let (pods, gateways) = (app.pods()?, gateway::pods(step.cluster)?);
        let callers = call(step, &app)?;
        // What Portolan has not seen when the API server goes, it will not see before that is back.
        right(step, &app, &callers)?;

        let control_plane = step.cluster.control_plane();
        let away = Instant::now();
        control_plane.kill_api_server();
        // Whatever comes of this, what comes after it needs the API server.
        let outage = outage(step, &callers, &pods, &gateways, away);
        control_plane.restart_api_server()?;
        let back = Instant::now();
        let outage = outage?;
        step.figures.note("API server away for", time(back - away));
        in_touch(step, &gateways)?;
        step.figures.note("every gateway back in touch after", time(back.elapsed()));
        // Left alone, the kubelet comes back to the API server only some time after its return, up to a minute.
        let begun = Instant::now();
        control_plane.kill_kubelet();
        wait::look(step.plan.look);
        control_plane.restart_kubelet()?;
        step.figures.note("kubelet away for", time(begun.elapsed()));
        let after = changes_flow(step, &app, &callers, 4)?;
        step.figures.note("after both: a new pod asked", time(after));
        right(step, &app, &callers)?;

        let Both { portolan, kube_proxy } = stop(step, callers)?;
        judge(step, &outage, &portolan, &kube_proxy, &pods[0].name)
    });
}

fn app(name: &str, step: &mut Step) -> Result<App> {
    // Less than the default of 5 s: a pod that comes back twice within the short outage is asked again that often.
    let app = Blueprint::named(name).rude().replicas(3).latency(LATENCY);
    app.annotate("portolan.dev/outlier-ejection", "2s").create(step)
}

/// Everything that happens while the API server is away. Nothing here asks it.
fn outage(
    step: &mut Step,
    callers: &Callers,
    pods: &[Pod],
    gateways: &[Pod],
    away: Instant,
) -> Result<Outage> {
    wait::look(step.plan.look);
    let left_out = left_out(step, callers, &pods[0], gateways)?;
    let gateway_away = gateway_restarted(step, &gateways[0])?;
    wait::look(step.plan.outage.saturating_sub(away.elapsed()));
    // The table is as it was to the end.
    for gateway in gateways {
        let answer = http::fetch(gateway.edge()?, &format!("/{APP}/"))?;
        ensure!(answer.status == 200, "{} at the end of the outage: {}", gateway.name, answer.head);
    }
    Ok(Outage { left_out, gateway_away })
}

/// A pod of the application dies and Kubernetes can tell nobody: every gateway finds out by itself, and also when the
/// pod is back. Killed twice, since the kubelet starts it at once the first time.
fn left_out(step: &mut Step, callers: &Callers, pod: &Pod, gateways: &[Pod]) -> Result<(Instant, Instant)> {
    pod.kill(step.cluster, "echo")?;
    let since = answers((pod.address()?, 8080).into(), "/", "the pod that was killed once")?;
    asked_since(callers, pod, since)?;
    pod.kill(step.cluster, "echo")?;
    let killed = Instant::now();
    for gateway in gateways {
        wait::until(&format!("{} leaves out {}", gateway.name, pod.name), CONTAINER_STARTS, || {
            Ok((gateway.metric("portolan_endpoints", "ejected")? > 0.0).then_some(()))
        })?;
    }
    let from = Instant::now();
    step.figures.note("a pod that died meanwhile left out after", time(from - killed));
    let address = (pod.address()?, 8080).into();
    // Until then it was surely dead; how soon after its return it is asked is the gateways' affair.
    let mut until = from;
    let back = wait::until("an answer of the pod that was killed twice", CONTAINER_STARTS, || {
        let asked = Instant::now();
        let is_back = http::fetch(address, "/").is_ok_and(|answer| answer.status == 200);
        if !is_back {
            until = asked;
        }
        Ok(is_back.then(Instant::now))
    })?;
    asked_since(callers, pod, back)?;
    step.figures.note("taken back after", time(back.elapsed()));
    Ok((from, until))
}

/// Returns when the pod has answered a request through Portolan that was due since then.
fn asked_since(callers: &Callers, pod: &Pod, since: Instant) -> Result<()> {
    wait::until(&format!("a request to {}, which is back", pod.name), CONTAINER_STARTS, || {
        let answered = by_upstream(&callers.portolan.book().due_between(since, Instant::now()));
        Ok(answered.contains_key(&pod.name).then_some(()))
    })
}

/// A gateway container is killed, the kubelet starts it again, and it serves what its file has, and says so.
fn gateway_restarted(step: &mut Step, gateway: &Pod) -> Result<(Instant, Instant)> {
    let killed = Instant::now();
    gateway.kill(step.cluster, "portolan")?;
    let serves = answers(gateway.edge()?, &format!("/{APP}/"), "the gateway that was killed")?;
    step.figures.note("a gateway killed meanwhile serves again after", time(serves - killed));
    let answer = gateway.status("/readyz")?;
    ensure!(answer.status == 200, "the killed gateway serves and says that it is not ready: {}", answer.body);
    let said = answer.json();
    let age = said["restored"]["age_seconds"].as_u64();
    let age =
        age.with_context(|| format!("/readyz does not say where its table is from: {}", answer.body))?;
    step.figures.note("from a snapshot of an age of", format!("{age} s"));
    let mut sources = said["sources"].as_array().into_iter().flatten();
    let away = sources.any(|source| source["name"] == "kubernetes" && source["fresh"] == false);
    ensure!(away, "/readyz does not say that the API server is away: {}", answer.body);
    Ok((killed, serves))
}

/// Returns when every gateway follows the API server again.
fn in_touch(step: &Step, gateways: &[Pod]) -> Result<()> {
    for gateway in gateways {
        wait::until(
            &format!("{} in touch with the API server", gateway.name),
            step.plan.limit(RIGHT_AGAIN),
            || {
                let said = gateway.status("/readyz")?.json();
                let mut sources = said["sources"].as_array().into_iter().flatten();
                let in_touch = sources.all(|source| source["fresh"] == true && source["synced"] == true);
                Ok((in_touch && said["restored"].is_null()).then_some(()))
            },
        )?;
    }
    Ok(())
}

/// One pod more, up to `replicas`: how long after it was ready it answered through Portolan.
fn changes_flow(step: &Step, app: &App, callers: &Callers, replicas: usize) -> Result<Duration> {
    let known: BTreeSet<_> = app.pods()?.into_iter().map(|pod| pod.name).collect();
    let watch = Watch::start(step.cluster, &["pods", "--selector", &app.selector()])?;
    app.scale(replicas)?;
    let (name, ready) = watch.until(CONTAINER_STARTS, |event| {
        let pod = Pod::of(&event.object);
        (pod.ready && !known.contains(&pod.name)).then_some((pod.name, event.at))
    })?;
    wait::until(&format!("an answer of the new pod {name}"), step.plan.limit(RIGHT_AGAIN), || {
        let entries = callers.portolan.book().entries();
        let first = entries.iter().find(|it| it.upstream.as_ref() == Some(&name));
        Ok(first.map(|it| it.ended.saturating_duration_since(ready)))
    })
}

/// Returns when the pods that answer are those that there are.
fn right(step: &Step, app: &App, callers: &Callers) -> Result<()> {
    let pods: BTreeSet<_> = app.pods()?.into_iter().map(|pod| pod.name).collect();
    let from = Instant::now();
    wait::until("an answer of each pod", step.plan.limit(RIGHT_AGAIN), || {
        let answered = by_upstream(&callers.portolan.book().due_between(from, Instant::now()));
        ensure!(answered.keys().all(|name| pods.contains(name)), "{answered:?}, and there are {pods:?}");
        Ok((answered.len() == pods.len()).then_some(()))
    })
}

/// While a gateway container is away and no API server can take it out of the NodePort, kube-proxy sends its share of
/// the connections there. Nothing else may fail.
fn judge(
    step: &mut Step,
    outage: &Outage,
    portolan: &Traffic,
    kube_proxy: &Traffic,
    dead: &str,
) -> Result<()> {
    let (killed, serves) = outage.gateway_away;
    let margin = LATENCY * 10 + step.plan.apart();
    let (from, until) = (killed - margin, serves + margin);
    let (mut away, mut otherwise) = (0, 0);
    for entry in portolan.book.entries().iter().filter(|it| !it.answered) {
        *(if from <= entry.due && entry.due <= until { &mut away } else { &mut otherwise }) += 1;
    }
    let what = format!("API server and kubelet away: failed, of {}", portolan.report.requests);
    step.figures.beside(&what, otherwise, kube_proxy.report.failed);
    let asked = portolan.book.due_between(from, until).len();
    step.figures.note(&format!("while the killed gateway was away: failed, of {asked}"), away);
    ensure!(
        otherwise == 0,
        "{otherwise} requests failed beside those of the killed gateway\n{}",
        portolan.report
    );
    let (from, until) = outage.left_out;
    let mut entries = portolan.book.due_between(from, until);
    entries.retain(|it| it.ended <= until);
    let answered = by_upstream(&entries);
    ensure!(!answered.is_empty(), "nothing was asked while the pod was dead");
    ensure!(!answered.contains_key(dead), "the dead pod answered: {answered:?}");
    Ok(())
}

fn call(step: &Step, app: &App) -> Result<Callers> {
    Callers::start(step.cluster, &app.name, step.plan.rate, |load| load)
}

/// Watches the load for a while more, and stops it.
fn stop(step: &Step, callers: Callers) -> Result<Both> {
    wait::look(step.plan.look);
    callers.stop()
}

/// When something answered there.
fn answers(address: SocketAddr, path: &str, what: &str) -> Result<Instant> {
    wait::until(&format!("an answer of {what}"), CONTAINER_STARTS, || {
        let answer = http::fetch(address, path).ok().filter(|answer| answer.status == 200);
        Ok(answer.map(|_| Instant::now()))
    })
}
