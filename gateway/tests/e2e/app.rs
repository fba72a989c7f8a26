//! Sample applications: the echo server as a Deployment, with a Service that Portolan exposes.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::cluster::{Cluster, node_port};
use crate::step::Step;
use crate::watch::has_condition;
use crate::{http, wait};

/// How long the preStop hook of a well-behaved pod takes: so long it serves on as if nothing was.
pub(crate) const PRE_STOP: Duration = Duration::from_secs(2);

/// An application to be made. Its pods are ready once the kubelet's probe of each second has seen them.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    name: String,
    replicas: usize,
    image: String,
    env: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    pre_stop: Option<Duration>,
    grace: Duration,
    exposed: bool,
    probed: bool,
    deployment: Value,
}

/// An application at work: the Deployment, and the Service of the same name.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    cluster: &'static Cluster,
}

/// One pod of an application.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// None until it has one.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
}

impl Blueprint {
    /// One pod of `portolan-echo:v1` that finishes what is under way on SIGTERM, exposed as `/NAME/**`.
    pub(crate) fn named(name: &str) -> Blueprint {
        Blueprint {
            name: name.to_owned(),
            replicas: 1,
            image: "portolan-echo:v1".to_owned(),
            env: Vec::new(),
            annotations: Vec::new(),
            pre_stop: None,
            grace: Duration::from_secs(30),
            exposed: true,
            probed: true,
            deployment: json!({}),
        }
    }

    /// A pod as most are: no preStop hook, and SIGTERM ends it at once, with every connection and request.
    #[must_use]
    pub(crate) fn rude(self) -> Blueprint {
        self.env("ECHO_ON_TERM", "exit")
    }

    /// A pod as it should be: a preStop hook of [`PRE_STOP`], then it finishes what is under way.
    #[must_use]
    pub(crate) fn well_behaved(self) -> Blueprint {
        Blueprint { pre_stop: Some(PRE_STOP), ..self }.env("ECHO_ON_TERM", "finish")
    }

    #[must_use]
    pub(crate) fn replicas(self, replicas: usize) -> Blueprint {
        Blueprint { replicas, ..self }
    }

    /// Another image: `portolan-echo:v2`.
    #[must_use]
    pub(crate) fn image(self, image: &str) -> Blueprint {
        Blueprint { image: image.to_owned(), ..self }
    }

    /// A variable of the echo server, see `portolan-loadtest backend --help`.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: &str) -> Blueprint {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How long an answer takes.
    #[must_use]
    pub(crate) fn latency(self, latency: Duration) -> Blueprint {
        self.env("ECHO_LATENCY", &format!("{}ms", latency.as_millis()))
    }

    /// An annotation of the Service: `portolan.dev/health-path`.
    #[must_use]
    pub(crate) fn annotate(mut self, name: &str, value: &str) -> Blueprint {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a readiness probe: ready as soon as it runs, and for as long.
    #[must_use]
    pub(crate) fn without_probe(self) -> Blueprint {
        Blueprint { probed: false, ..self }
    }

    /// How long the kubelet waits after SIGTERM.
    #[must_use]
    pub(crate) fn grace(self, grace: Duration) -> Blueprint {
        Blueprint { grace, ..self }
    }

    /// Fields of the Deployment's spec, such as `strategy`.
    #[must_use]
    pub(crate) fn deployment(self, fields: Value) -> Blueprint {
        Blueprint { deployment: fields, ..self }
    }

    /// Makes it, to be removed with the step, and returns when every pod is ready and Portolan routes to it.
    ///
    /// # Errors
    /// When the API server refuses it, or it is not ready and routed within four minutes.
    pub(crate) fn create(self, step: &mut Step) -> Result<App> {
        step.owns("deployment", &self.name);
        step.owns("service", &self.name);
        let app = App { name: self.name.clone(), cluster: step.cluster };
        step.cluster.control_plane().apply(&self.objects())?;
        app.wait_for_rollout()?;
        if self.exposed && self.replicas > 0 {
            app.wait_until_routed()?;
        }
        Ok(app)
    }

    fn objects(&self) -> String {
        let labels = json!({ "app": self.name });
        let mut annotations = json!({ "portolan.dev/expose": self.exposed.to_string() });
        for (name, value) in &self.annotations {
            annotations[name] = json!(value);
        }
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.name,
                "namespace": crate::cluster::NAMESPACE,
                "annotations": annotations,
            },
            "spec": {
                "selector": labels,
                "ports": [
                    { "name": "http", "port": 80, "targetPort": 8080 },
                    { "name": "management", "port": 9000, "targetPort": 8081 },
                ],
            },
        });
        let mut deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": self.name, "namespace": crate::cluster::NAMESPACE },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": self.pod() },
            },
        });
        for (name, value) in self.deployment.as_object().into_iter().flatten() {
            deployment["spec"][name] = value.clone();
        }
        format!("{service}\n---\n{deployment}\n")
    }

    fn pod(&self) -> Value {
        let env: Vec<_> =
            self.env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let mut container = json!({
            "name": "echo",
            "image": self.image,
            "imagePullPolicy": "Never",
            "env": env,
            "ports": [
                { "name": "http", "containerPort": 8080 },
                { "name": "management", "containerPort": 8081 },
            ],
            "resources": { "requests": { "cpu": "10m", "memory": "8Mi" } },
        });
        if self.probed {
            container["readinessProbe"] = json!({
                "httpGet": { "path": "/healthz", "port": "http" },
                "periodSeconds": 1,
                // A machine at work answers late; a pod that is dead refuses at once.
                "timeoutSeconds": 10,
                "failureThreshold": 2,
            });
        }
        if let Some(time) = self.pre_stop {
            container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": time.as_secs() } } });
        }
        json!({
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": self.grace.as_secs(),
            "containers": [container],
        })
    }
}

impl App {
    /// The path at the edge: `/NAME/`.
    pub(crate) fn path(&self) -> String {
        format!("/{}/", self.name)
    }

    /// `kubectl scale`; returns at once.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub(crate) fn scale(&self, replicas: usize) -> Result<()> {
        self.kubectl(&["scale", &self.deployment(), &format!("--replicas={replicas}")])
    }

    /// `kubectl set image`; returns at once.
    ///
    /// # Errors
    /// As [`App::scale`].
    pub(crate) fn set_image(&self, image: &str) -> Result<()> {
        self.kubectl(&["set", "image", &self.deployment(), &format!("echo={image}")])
    }

    /// `kubectl set env`, which is a rollout; returns at once.
    ///
    /// # Errors
    /// As [`App::scale`].
    pub(crate) fn set_env(&self, name: &str, value: &str) -> Result<()> {
        self.kubectl(&["set", "env", &self.deployment(), &format!("{name}={value}")])
    }

    /// `kubectl rollout undo`, `restart`, `pause` and their like; returns at once.
    ///
    /// # Errors
    /// As [`App::scale`].
    pub(crate) fn rollout(&self, action: &str) -> Result<()> {
        self.kubectl(&["rollout", action, &self.deployment()])
    }

    /// Returns when every pod is new and ready. Old ones may still be terminating.
    ///
    /// # Errors
    /// When that is not so within four minutes.
    pub(crate) fn wait_for_rollout(&self) -> Result<()> {
        self.cluster.wait_for_rollout(&self.name)
    }

    /// Returns when Portolan answers from it.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub(crate) fn wait_until_routed(&self) -> Result<()> {
        let what = format!("an answer of {} through Portolan", self.name);
        wait::until(&what, Duration::from_secs(60), || {
            Ok(http::fetch(node_port(), &self.path()).ok().filter(|answer| answer.status == 200))
        })?;
        Ok(())
    }

    /// Its pods, the terminating ones too.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>> {
        pods(self.cluster, &self.selector())
    }

    /// The label selector of its pods.
    pub(crate) fn selector(&self) -> String {
        format!("app={}", self.name)
    }

    fn deployment(&self) -> String {
        format!("deployment/{}", self.name)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        self.cluster.kubectl(arguments).with_context(|| self.name.clone())?;
        Ok(())
    }
}

/// The pods that this label selector chooses, the terminating ones too.
///
/// # Errors
/// When the API server does not answer.
pub(crate) fn pods(cluster: &Cluster, selector: &str) -> Result<Vec<Pod>> {
    let list = cluster.json(&["pods", "--selector", selector])?;
    Ok(list["items"].as_array().into_iter().flatten().map(Pod::of).collect())
}

impl Pod {
    /// What the object says.
    pub(crate) fn of(object: &Value) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Pod {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            address: object["status"]["podIP"].as_str().and_then(|address| address.parse().ok()),
            ready: has_condition(object, "Ready"),
            terminating: object["metadata"]["deletionTimestamp"].is_string(),
        }
    }

    /// Its address.
    ///
    /// # Errors
    /// When it has none yet.
    pub(crate) fn address(&self) -> Result<Ipv4Addr> {
        self.address.with_context(|| format!("the pod {} has no address yet", self.name))
    }

    /// Process 1 of one of its containers, on this machine. It does not ask the API server.
    ///
    /// # Errors
    /// When the container does not run.
    pub(crate) fn process(&self, cluster: &Cluster, container: &str) -> Result<Pid> {
        let process =
            cluster.control_plane().container_pid(crate::cluster::NAMESPACE, &self.name, container)?;
        Pid::from_raw(process).context("a process id is not 0")
    }

    /// `kill -9` of one of its containers; returns when its process is gone.
    ///
    /// # Errors
    /// As [`Pod::process`].
    pub(crate) fn kill(&self, cluster: &Cluster, container: &str) -> Result<()> {
        let process = self.process(cluster, container)?;
        let what = format!("kill -9 of {container} in {}", self.name);
        kill_process(process, Signal::KILL).with_context(|| what.clone())?;
        wait::until(&what, Duration::from_secs(10), || Ok(test_kill_process(process).err()))?;
        Ok(())
    }
}
