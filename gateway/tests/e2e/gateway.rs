//! Portolan's pods, and what they show of themselves.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::app::{self, Pod};
use crate::cluster::{Cluster, NAMESPACE};
use crate::http::{self, Answer};
use crate::wait;

/// The label selector of Portolan's pods.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/name=portolan";

/// Portolan's pods that are neither starting nor terminating.
///
/// # Errors
/// When the API server does not answer.
pub(crate) fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let pods = app::pods(cluster, SELECTOR)?;
    Ok(pods.into_iter().filter(|pod| pod.ready && !pod.terminating).collect())
}

impl Pod {
    /// A page of a gateway pod's status address: `/readyz`, `/livez`, `/metrics`.
    ///
    /// # Errors
    /// When nothing answers there.
    pub(crate) fn status(&self, path: &str) -> Result<Answer> {
        Ok(http::fetch(SocketAddr::from((self.address()?, 9902)), path)?)
    }

    /// The edge listener of this one gateway pod, past the NodePort.
    ///
    /// # Errors
    /// When the pod has no address yet.
    pub(crate) fn edge(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::from((self.address()?, 8080)))
    }

    /// A page of a gateway pod's admin address, `/table`, `/findings`, `/explain?…`: it listens on the pod's loopback,
    /// so through `kubectl port-forward`, as a person does it.
    ///
    /// # Errors
    /// When the forward cannot be made or nothing answers.
    pub(crate) fn admin(&self, cluster: &Cluster, path: &str) -> Result<Answer> {
        let forward = Forward::start(cluster, &self.name, 9901)?;
        Ok(http::fetch(forward.address, path)?)
    }

    /// The sum of a metric over all its labels that contain `labels`.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let page = self.status("/metrics")?.body;
        let of = |line: &str| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "));
        let lines = page.lines().filter(|line| of(line) && line.contains(labels));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The ports on the pod's side of its open connections to this address, from the kernel's table: what it holds, not
    /// what it says that it holds. `container` is a container that runs in the pod.
    ///
    /// # Errors
    /// When the container does not run.
    pub(crate) fn connections_to(
        &self,
        cluster: &Cluster,
        container: &str,
        to: Ipv4Addr,
    ) -> Result<Vec<u16>> {
        let process = cluster.control_plane().container_pid(NAMESPACE, &self.name, container)?;
        connections(process, to)
    }
}

/// The local ports of the established connections to `to` in the network namespace of a process.
///
/// # Errors
/// When the process has ended.
pub(crate) fn connections(process: i32, to: Ipv4Addr) -> Result<Vec<u16>> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp"))
        .with_context(|| format!("the connections of process {process}"))?;
    // The kernel writes the four bytes as one number of the machine's own order.
    let remote = format!("{:08X}:", u32::from_ne_bytes(to.octets()));
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, other, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.split(':').nth(1)?, 16).ok()?;
        (other.starts_with(&remote) && state == ESTABLISHED).then_some(port)
    };
    Ok(table.lines().filter_map(port).collect())
}

/// The findings on objects of this name, from one gateway pod.
///
/// # Errors
/// When the page cannot be read.
pub(crate) fn findings(cluster: &Cluster, gateway: &Pod) -> Result<Vec<Value>> {
    let page = gateway.admin(cluster, "/findings")?;
    serde_json::from_str(&page.body).with_context(|| format!("/findings: {}", page.body))
}

/// Waits until a finding with this reason, about a field that contains `field`, stands at a gateway pod.
///
/// # Errors
/// When none does in time; those that do are in the message.
pub(crate) fn finding(
    cluster: &Cluster,
    gateway: &Pod,
    reason: &str,
    field: &str,
    limit: Duration,
) -> Result<Value> {
    let mut last = json!([]);
    let found = wait::until(&format!("the finding {reason} at {}", gateway.name), limit, || {
        let findings = shown(findings(cluster, gateway), &mut last);
        Ok(findings.and_then(|it| it.into_iter().find(|finding| is_about(finding, reason, field))))
    });
    found.with_context(|| format!("findings: {last}"))
}

/// Waits until no finding with this reason, about a field that contains `field`, stands at a gateway pod.
///
/// # Errors
/// When one stands for longer than `limit`; those that do are in the message.
pub(crate) fn no_finding(
    cluster: &Cluster,
    gateway: &Pod,
    reason: &str,
    field: &str,
    limit: Duration,
) -> Result<()> {
    let mut last = json!([]);
    let gone = wait::until(&format!("the end of the finding {reason} at {}", gateway.name), limit, || {
        let findings = shown(findings(cluster, gateway), &mut last);
        Ok(findings.filter(|it| !it.iter().any(|finding| is_about(finding, reason, field))).map(drop))
    });
    gone.with_context(|| format!("findings: {last}"))
}

/// What the page shows, kept for the message of whoever waits. The way to it leads over the API server and the kubelet,
/// which steps restart: a page that cannot be read now is read again.
fn shown(page: Result<Vec<Value>>, last: &mut Value) -> Option<Vec<Value>> {
    *last = match &page {
        Ok(findings) => json!(findings),
        Err(error) => json!(format!("{error:#}")),
    };
    page.ok()
}

fn is_about(finding: &Value, reason: &str, field: &str) -> bool {
    finding["reason"] == reason && finding["field"].as_str().is_some_and(|text| text.contains(field))
}

/// What must stay as it is when nothing is restarted: each pod's uid, and how often its containers were started.
///
/// # Errors
/// When the API server does not answer.
pub(crate) fn lives(cluster: &Cluster) -> Result<Vec<(String, u64)>> {
    let list = cluster.json(&["pods", "--selector", SELECTOR])?;
    let pods = list["items"].as_array().into_iter().flatten();
    let mut lives: Vec<_> = pods
        .filter(|pod| !pod["metadata"]["deletionTimestamp"].is_string())
        .map(|pod| {
            let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            let starts = containers.filter_map(|it| it["restartCount"].as_u64()).sum();
            (pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), starts)
        })
        .collect();
    lives.sort();
    Ok(lives)
}

/// A `kubectl port-forward` at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Forward {
    child: Child,
    /// Kept open: it says each connection, and would end when nobody could hear it.
    output: BufReader<ChildStdout>,
    /// Where it listens on this side.
    pub(crate) address: SocketAddr,
}

impl Forward {
    /// Forwards a free port of loopback to a port of a pod's loopback.
    ///
    /// # Errors
    /// When kubectl does not say where it listens.
    pub(crate) fn start(cluster: &Cluster, pod: &str, port: u16) -> Result<Forward> {
        let arguments = ["port-forward", "--address=127.0.0.1", &format!("pod/{pod}"), &format!(":{port}")];
        let mut command = cluster.kubectl_command(&arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting kubectl port-forward")?;
        let output = child.stdout.take().context("its output is piped")?;
        // Made now, so that it is ended also when it says nothing good.
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut forward = Forward { child, output: BufReader::new(output), address };
        let mut line = String::new();
        forward.output.read_line(&mut line)?;
        let said = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
        forward.address = said.and_then(|address| address.parse().ok()).with_context(|| {
            format!("kubectl port-forward to {pod} said {line:?} and not where it listens")
        })?;
        Ok(forward)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_ok();
        let _reaped = self.child.wait().is_ok();
    }
}
