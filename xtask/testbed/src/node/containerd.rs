//! containerd: its configuration, the images on it, and where a container's processes are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::mounts::MountNamespace;
use super::{NETWORK_PLUGINS, Node};
use crate::daemon;
use crate::image::Image;
use crate::netns::succeed;

/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "cluster.local/pause:1";

/// How long containerd may take until it answers.
const START: Duration = Duration::from_secs(60);

pub(super) fn arguments(folder: &Path) -> Vec<String> {
    vec![format!("--config={}", folder.join("containerd.toml").display())]
}

pub(super) fn write_configuration(folder: &Path) -> Result<()> {
    let networks = folder.join("networks");
    fs::create_dir_all(&networks)?;
    fs::write(networks.join("10-pods.conflist"), format!("{:#}", pod_network()))?;
    let networks = networks.to_str().context("the cluster's folder has a name in UTF-8")?;
    // JSON's strings are TOML's basic strings.
    let (networks, plugins) = (json!(networks), json!(NETWORK_PLUGINS));
    // - opt would make /opt/containerd on the machine.
    // - Without the capability to lower it, a container's OOM score stays what containerd's is.
    // - The pods' network namespaces go with our mounts rather than stay in /run/netns.
    let configuration = format!(
        r#"version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {plugins}
    conf_dir = {networks}
"#
    );
    fs::write(folder.join("containerd.toml"), configuration)?;
    Ok(())
}

/// Pods on a bridge whose address is their gateway; a pod reaches itself through its own Service.
fn pod_network() -> serde_json::Value {
    let addresses = json!({
        "type": "host-local",
        "ranges": [[{ "subnet": "10.244.0.0/16" }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            { "type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true, "ipam": addresses },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

impl Node {
    pub(super) fn load_image(&self, archive: &Path) -> Result<()> {
        let archive =
            archive.canonicalize().with_context(|| format!("no image archive {}", archive.display()))?;
        succeed(self.ctr().args(["images", "import"]).arg(&archive))
            .with_context(|| format!("cannot load the image archive {}", archive.display()))?;
        Ok(())
    }

    /// Makes an image of one static program and loads it.
    pub(super) fn load_program(&self, name: &str, reference: &str, program: &Path) -> Result<()> {
        let archive = self.folder.join(format!("{name}.tar"));
        let inside = format!("/{name}");
        let image = Image {
            reference: reference.to_owned(),
            files: vec![(program.to_owned(), inside.clone())],
            entrypoint: vec![inside],
            user: "65532:65532".to_owned(),
            ..Image::default()
        };
        image.write(&archive)?;
        self.load_image(&archive)?;
        fs::remove_file(&archive)?;
        Ok(())
    }

    pub(super) fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<i32> {
        let filter = format!(
            r#"labels."io.kubernetes.pod.namespace"=={namespace},labels."io.kubernetes.pod.name"=={pod},labels."io.kubernetes.container.name"=={container}"#
        );
        let containers = self.printed(&["containers", "list", "--quiet", &filter])?;
        let tasks = self.printed(&["tasks", "list"])?;
        running(&containers, &tasks)
            .with_context(|| format!("no container {container} of the pod {namespace}/{pod} runs"))
    }

    /// Asks until it answers: containerd tells nobody when it is ready.
    pub(super) fn wait_for_containerd(&self) -> Result<()> {
        let begin = SystemTime::now();
        while let Err(error) = self.printed(&["version"]) {
            self.containerd.check()?;
            if begin.elapsed().unwrap_or_default() > START {
                let log = daemon::tail(&self.containerd.log());
                bail!("containerd did not answer within {START:?}: {error:#}\n{log}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// containerd's own client, in the part of containerd that belongs to Kubernetes.
    fn ctr(&self) -> Command {
        let mut command = MountNamespace::of(&self.folder).command("ctr");
        command.arg("--namespace=k8s.io");
        command
    }

    fn printed(&self, arguments: &[&str]) -> Result<String> {
        let output = succeed(self.ctr().args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The process of the running one of these containers. `tasks` has a line `ID PID STATUS` for each.
fn running(containers: &str, tasks: &str) -> Option<i32> {
    tasks.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (id, pid, status) = (fields.next()?, fields.next()?, fields.next()?);
        let asked_for = containers.split_whitespace().any(|container| container == id);
        (asked_for && status == "RUNNING").then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_container_is_the_one() {
        let tasks =
            "TASK    PID    STATUS\nold     10     STOPPED\nother   11     RUNNING\nnew     12     RUNNING\n";
        assert_eq!(running("old\nnew\n", tasks), Some(12));
        assert_eq!(running("old\n", tasks), None);
        assert_eq!(running("", tasks), None);
    }
}
