//! A pod with a client of its own: `curl` of this machine, in an image without anything else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portolan_testbed::Image;
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE};
use crate::step::Step;

const IMAGE: &str = "portolan-curl:dev";
const CURL: &str = "/usr/bin/curl";
const SLEEP: &str = "/usr/bin/sleep";

/// A pod whose containers differ in one variable: [`Caller::PROXIED`] has `http_proxy`, [`Caller::PLAIN`] has not.
#[derive(Debug)]
pub(crate) struct Caller {
    cluster: &'static Cluster,
}

/// What one request of `curl` came to.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// 0 when there was no answer.
    pub(crate) status: u16,
    pub(crate) looked_up: Duration,
    pub(crate) total: Duration,
    /// The field `x-upstream` of the answer: the pod that gave it.
    pub(crate) upstream: String,
}

impl Caller {
    /// The container with `http_proxy` set to Portolan's Service.
    pub(crate) const PROXIED: &str = "proxied";
    /// The container without.
    pub(crate) const PLAIN: &str = "plain";

    /// Makes the image and the pod, and returns when it runs.
    ///
    /// # Errors
    /// When this machine has no `curl`, or the pod is not ready within a minute.
    pub(crate) fn create(step: &mut Step) -> Result<Caller> {
        let cluster = step.cluster;
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("curl.tar");
        image()?.write(&archive)?;
        cluster.control_plane().load_image(&archive)?;
        step.owns("pod", "caller");
        cluster.control_plane().apply(&pod().to_string())?;
        cluster.kubectl(&["wait", "pod/caller", "--for=condition=Ready", "--timeout=60s"])?;
        Ok(Caller { cluster })
    }

    /// `curl` with these options in a container: what each of its requests came to, in the order of the URLs. A URL may
    /// stand for several: `http://hello/?[1-100]`.
    ///
    /// # Errors
    /// When `curl` cannot be run or writes something else than it was asked for.
    pub(crate) fn curl(&self, container: &str, options: &[&str], urls: &[String]) -> Result<Vec<Call>> {
        let each = "%{http_code} %{time_namelookup} %{time_total} %header{x-upstream}\n";
        let mut arguments = vec!["exec", "caller", "--container", container, "--", CURL];
        arguments.extend(["--silent", "--max-time", "20", "--write-out", each]);
        arguments.extend(options);
        for url in urls {
            arguments.extend(["--output", "/dev/null", url.as_str()]);
        }
        let output = self.cluster.kubectl_command(&arguments).output().context("running kubectl exec")?;
        // The status of curl is that of its last request: what counts is what it wrote about each.
        let written = String::from_utf8_lossy(&output.stdout);
        let calls: Vec<_> = written.lines().map(Call::parse).collect::<Result<_>>()?;
        ensure!(
            calls.len() >= urls.len(),
            "curl {} wrote of {} requests only: {}",
            urls.join(" "),
            calls.len(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(calls)
    }
}

impl Call {
    /// One line that `curl` wrote.
    ///
    /// # Errors
    /// When it is another line.
    pub(crate) fn parse(line: &str) -> Result<Call> {
        let words: Vec<_> = line.split(' ').collect();
        let [status, looked_up, total, upstream] = words[..] else { bail!("curl wrote {line:?}") };
        let seconds = |text: &str| {
            let seconds = text.parse().with_context(|| format!("curl wrote {line:?}"))?;
            anyhow::Ok(Duration::from_secs_f64(seconds))
        };
        Ok(Call {
            status: status.parse().with_context(|| format!("curl wrote {line:?}"))?,
            looked_up: seconds(looked_up)?,
            total: seconds(total)?,
            upstream: upstream.to_owned(),
        })
    }
}

fn image() -> Result<Image> {
    let mut files = BTreeSet::new();
    for program in [CURL, SLEEP] {
        ensure!(
            Path::new(program).exists(),
            "the caller's image is made of {program} of this machine: install curl and coreutils"
        );
        files.insert(PathBuf::from(program));
        files.extend(libraries(program)?);
    }
    Ok(Image {
        reference: IMAGE.to_owned(),
        files: files.into_iter().map(|file| (file.clone(), file.display().to_string())).collect(),
        entrypoint: vec![SLEEP.to_owned(), "infinity".to_owned()],
        user: "65532:65532".to_owned(),
        ..Image::default()
    })
}

/// What the dynamic linker would load, itself included.
fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !listed.contains("not found"), "ldd {program}: {listed}");
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(listed.lines().filter_map(path).collect())
}

fn pod() -> serde_json::Value {
    let container = |name: &str, env: serde_json::Value| json!({ "name": name, "image": IMAGE, "imagePullPolicy": "Never", "env": env });
    let proxy = json!([{ "name": "http_proxy", "value": "http://portolan.service-discovery:80" }]);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "caller", "namespace": NAMESPACE },
        "spec": {
            "automountServiceAccountToken": false,
            // Process 1 does not listen to SIGTERM.
            "terminationGracePeriodSeconds": 0,
            "containers": [container(Caller::PROXIED, proxy), container(Caller::PLAIN, json!([]))],
        },
    })
}
