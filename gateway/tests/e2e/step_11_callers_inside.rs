//! Callers inside the Kubernetes cluster: a pod with curl, cluster DNS, and Portolan as its `http_proxy` or by path. From
//! outside, the same authorities are nobody's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::app::{App, Blueprint};
use crate::caller::{Call, Caller};
use crate::cluster::{Cluster, node_port};
use crate::figures::time;
use crate::http;
use crate::step::{self, Step};
use crate::wait;

/// Every name of the Service `hello`, as a caller in its own namespace may write it.
const NAMES: [&str; 4] = [
    "hello",
    "hello.service-discovery",
    "hello.service-discovery.svc",
    "hello.service-discovery.svc.cluster.local",
];

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn a_pod_calls_through_the_gateway() {
    step::run(11, "callers inside the cluster", |step| {
        restart_dns(step.cluster)?;
        let app = Blueprint::named("hello").create(step)?;
        let caller = Caller::create(step)?;
        by_authority(&caller, &app)?;
        by_path(&caller, &app)?;
        refused_at_the_edge(&caller)?;
        measured(step, &caller)?;
        during_a_rollout(step, &caller, &app)
    });
}

/// CoreDNS follows an API server that was away (steps 9 and 10) again only after up to a minute, and would not know a new
/// Service until then. A new process does at once.
fn restart_dns(cluster: &Cluster) -> Result<()> {
    for action in ["restart", "status"] {
        cluster.control_plane().kubectl(&[
            "--namespace=kube-system",
            "rollout",
            action,
            "deployment/coredns",
        ])?;
    }
    Ok(())
}

/// `http_proxy` is Portolan's cluster listener: each name of a Service, and each of its ports.
fn by_authority(caller: &Caller, app: &App) -> Result<()> {
    answered(caller, Caller::PROXIED, &authorities().map(|it| format!("http://{it}/any/path?q=1")), app)?;
    let nobody = ["nobody", "nobody.service-discovery.svc", "hello.elsewhere.svc", "10.96.0.1"];
    let unknown = NAMES.iter().map(|name| format!("http://{name}:9001/"));
    let unknown = unknown.chain(nobody.map(|name| format!("http://{name}/")));
    expect(caller, Caller::PROXIED, &[], &unknown.collect::<Vec<_>>(), 404)?;
    Ok(())
}

/// Without `http_proxy`: Portolan's own Service, found by cluster DNS, and the path of the Service.
fn by_path(caller: &Caller, app: &App) -> Result<()> {
    let own = NAMES.map(|name| name.replace("hello", "portolan"));
    answered(
        caller,
        Caller::PLAIN,
        &own.clone().map(|name| format!("http://{name}/hello/any/path?q=1")),
        app,
    )?;
    expect(caller, Caller::PLAIN, &[], &own.map(|name| format!("http://{name}/nobody/")), 404)?;
    Ok(())
}

/// What a name means inside is nobody's business outside: neither as a proxy nor by the field Host.
fn refused_at_the_edge(caller: &Caller) -> Result<()> {
    let edge = node_port();
    for proxy in [format!("http://{edge}"), "http://portolan-edge.service-discovery:80".to_owned()] {
        let urls = authorities().map(|it| format!("http://{it}/"));
        expect(caller, Caller::PLAIN, &["--proxy", &proxy], &urls, 404)?;
    }
    for authority in authorities() {
        let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        let answer = http::send(edge, &request)?;
        ensure!(answer.status == 404, "Host: {authority} on the NodePort: {}", answer.head);
    }
    // The paths are the same on both sides.
    expect(caller, Caller::PLAIN, &[], &[format!("http://{edge}/hello/")], 200)?;
    Ok(())
}

/// Each name without a port, with the port `http` and with the port `management`.
fn authorities() -> [String; 12] {
    let ports = ["", ":80", ":9000"];
    std::array::from_fn(|index| format!("{}{}", NAMES[index / ports.len()], ports[index % ports.len()]))
}

/// Requests in a row on one connection, and each way's first with DNS, beside the same straight through kube-proxy.
fn measured(step: &mut Step, caller: &Caller) -> Result<()> {
    let count = if step.plan.full { 2000 } else { 300 };
    let calls = |container: &str, url: &str| {
        let calls = caller.curl(container, &[], &[format!("{url}?[1-{count}]")])?;
        ensure!(calls.len() == count, "{url}: {} of {count} requests ended", calls.len());
        let failed: Vec<_> = calls.iter().filter(|call| call.status != 200).collect();
        ensure!(failed.is_empty(), "{url}: {} of {count} failed, the first {:?}", failed.len(), failed[0]);
        Ok(Took::of(&calls))
    };
    // Portolan needs no DNS for the name; the way beside it does.
    wait::until("cluster DNS and kube-proxy to know hello", Duration::from_secs(180), || {
        let calls = caller.curl(Caller::PLAIN, &[], &["http://hello.service-discovery.svc/".to_owned()])?;
        Ok(calls.first().filter(|call| call.status == 200).cloned())
    })?;
    let proxied = calls(Caller::PROXIED, "http://hello.service-discovery.svc/")?;
    let by_path = calls(Caller::PLAIN, "http://portolan.service-discovery/hello/")?;
    let straight = calls(Caller::PLAIN, "http://hello.service-discovery.svc/")?;
    step.figures.note("requests of each way", format!("{count}, 0 failed"));
    step.figures.beside("by http_proxy, median", time_us(proxied.median), time_us(straight.median));
    step.figures.beside("by http_proxy, 99 %", time_us(proxied.p99), time_us(straight.p99));
    step.figures.beside("by http_proxy, first with DNS", time_us(proxied.first), time_us(straight.first));
    step.figures.beside("by path, median", time_us(by_path.median), time_us(straight.median));
    step.figures.note("DNS of Portolan's name", time_us(by_path.looked_up));
    Ok(())
}

/// The pods behind the name are replaced while the caller calls.
fn during_a_rollout(step: &mut Step, caller: &Caller, app: &App) -> Result<()> {
    let some = || {
        let url = "http://hello.service-discovery.svc/?[1-100]".to_owned();
        let calls = caller.curl(Caller::PROXIED, &["--rate", "50/s"], &[url])?;
        ensure!(calls.len() == 100, "during a rollout: {} of 100 requests ended", calls.len());
        Ok(calls)
    };
    let before = some()?;
    let done = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let mut calls = before;
            while !done.load(Ordering::Relaxed) {
                calls.extend(some()?);
            }
            // By now the new pod is the only one.
            calls.extend(some()?);
            anyhow::Ok(calls)
        });
        let rolled_out = app.rollout("restart").and_then(|()| app.wait_for_rollout());
        done.store(true, Ordering::Relaxed);
        let calls = calling.join().unwrap();
        rolled_out.and(calls)
    })?;
    let count = calls.len();
    let failed: Vec<_> = calls.iter().filter(|call| call.status != 200).collect();
    ensure!(failed.is_empty(), "during a rollout: {} of {count} requests failed: {failed:?}", failed.len());
    let mut pods: Vec<_> = calls.iter().map(|call| call.upstream.as_str()).collect();
    pods.dedup();
    ensure!(pods.len() >= 2, "before and after the rollout the same pod answered: {pods:?}");
    step.figures.note("during a rollout, failed", format!("0 of {count}"));
    Ok(())
}

fn answered(caller: &Caller, container: &str, urls: &[String], app: &App) -> Result<()> {
    let pods = app.pods()?;
    for (url, call) in urls.iter().zip(expect(caller, container, &[], urls, 200)?) {
        ensure!(
            pods.iter().any(|pod| pod.name == call.upstream),
            "{url} from the container {container}: answered by {:?} and not by a pod of {}",
            call.upstream,
            app.name
        );
    }
    Ok(())
}

fn expect(
    caller: &Caller,
    container: &str,
    options: &[&str],
    urls: &[String],
    status: u16,
) -> Result<Vec<Call>> {
    let calls = caller.curl(container, options, urls)?;
    for (url, call) in urls.iter().zip(&calls) {
        ensure!(
            call.status == status,
            "curl {} {url} from the container {container}: {call:?} where {status} is right",
            options.join(" ")
        );
    }
    Ok(calls)
}

/// How long requests in a row took.
struct Took {
    /// With the name's look-up and the connection.
    first: Duration,
    looked_up: Duration,
    median: Duration,
    p99: Duration,
}

impl Took {
    fn of(calls: &[Call]) -> Took {
        let mut sorted: Vec<_> = calls.iter().map(|call| call.total).collect();
        sorted.sort();
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
        Took { first: calls[0].total, looked_up: calls[0].looked_up, median: at(0.5), p99: at(0.99) }
    }
}

fn time_us(duration: Duration) -> String {
    if duration < Duration::from_millis(1) {
        format!("{} µs", duration.as_micros())
    } else if duration < Duration::from_millis(10) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        time(duration)
    }
}
