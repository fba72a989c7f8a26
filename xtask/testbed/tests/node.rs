//! The node: pods run, answer and resolve names, outlive what steers them, and leave nothing behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use portolan_testbed::{ControlPlane, Image, assert_not_left_out_on_ci, sweep};

/// kubectl is a static program that is a server (`kubectl proxy`) and a client: all that these pods need.
const IMAGE: &str = "portolan-test-kubectl:dev";

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: hello
        image: portolan-test-kubectl:dev
        args: [proxy, --address=0.0.0.0, --port=8080, "--accept-hosts=.*"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: default}
spec:
  type: NodePort
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"#;

#[test]
fn left_out_only_off_ci() {
    assert_not_left_out_on_ci();
}

#[test]
#[ignore = "needs a node: cargo xtask test --only node"]
fn pods_answer_and_outlive_what_steers_them() -> Result<()> {
    let cluster = ControlPlane::shared()?;
    assert!(cluster.has_node());
    load_kubectl(&cluster)?;
    cluster.apply(DEPLOYMENT)?;
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    let pods = pods(&cluster)?;
    assert_eq!(pods.len(), 2, "{pods:?}");

    // Through kube-proxy, and from a pod by the name of the Service.
    wait_for("the NodePort", || ask_node_port().map(drop))?;
    let asked = ["--server=http://hello", "get", "--raw", "/version"];
    let answer = cluster.kubectl(&[&["exec", &pods[0], "--", "/kubectl"], &asked[..]].concat())?;
    assert!(answer.contains("gitVersion"), "{answer}");
    let log = cluster.kubectl(&["logs", &pods[1]])?;
    assert!(log.contains("Starting to serve"), "{log}");
    forwarded(&cluster, &pods[0])?;

    // Whatever is killed around them, they are the same processes.
    let pids = |cluster: &ControlPlane| {
        pods.iter().map(|pod| cluster.container_pid("default", pod, "hello")).collect::<Result<Vec<_>>>()
    };
    let before = pids(&cluster)?;
    cluster.kill_kubelet();
    ask_node_port()?;
    cluster.restart_kubelet()?;
    cluster.kill_api_server();
    ask_node_port().expect_err("the pods ask the API server in turn, which is dead");
    assert_eq!(pids(&cluster)?, before);
    cluster.restart_api_server()?;
    cluster.restart_etcd()?;
    wait_for("the NodePort", || ask_node_port().map(drop))?;
    assert_eq!(pids(&cluster)?, before);

    // A process that is killed gets a successor in the same pod.
    Command::new("kill").args(["-KILL", &before[0].to_string()]).status()?;
    wait_for("the container's successor", || {
        let now = pids(&cluster)?;
        ensure!(now[0] != before[0], "it is still the old one");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "deployment,service", "hello"])?;
    let nobody = cluster.container_pid("default", "nobody", "hello").unwrap_err();
    assert!(nobody.to_string().contains("default/nobody"), "{nobody:#}");
    cluster.check()
}

#[test]
#[ignore = "needs a node: cargo xtask test --only node"]
fn a_second_cluster_leaves_nothing_behind() -> Result<()> {
    let shared = ControlPlane::shared()?;
    let routes = routes()?;
    let kernel = kernel_values()?;

    let cluster = Started::new()?;
    let traces = cluster.traces()?;
    assert_eq!(kernel_values()?, kernel, "a running kubelet sets none of the machine's values");
    cluster.end()?;
    traces.assert_gone()?;

    let cluster = Started::new()?;
    let traces = cluster.traces()?;
    cluster.kill()?;
    // The daemons end with their starter; the containers and what is mounted wait for the sweep.
    assert!(traces.processes.iter().any(|pid| is_alive(*pid)), "without survivors the sweep proves nothing");
    sweep()?;
    traces.assert_gone()?;

    assert_eq!(self::routes()?, routes);
    shared.check()
}

fn load_kubectl(cluster: &ControlPlane) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("kubectl.tar");
    let image = Image {
        reference: IMAGE.to_owned(),
        files: vec![(cluster.kubectl_program().to_owned(), "/kubectl".to_owned())],
        entrypoint: vec!["/kubectl".to_owned()],
        ..Image::default()
    };
    image.write(&archive)?;
    cluster.load_image(&archive)
}

fn pods(cluster: &ControlPlane) -> Result<Vec<String>> {
    let names = ["get", "pods", "--selector=app=hello", "--output=jsonpath={.items[*].metadata.name}"];
    Ok(cluster.kubectl(&names)?.split_whitespace().map(str::to_owned).collect())
}

fn ask_node_port() -> Result<String> {
    ask("10.250.0.1:30080")
}

fn ask(address: &str) -> Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(b"GET /version HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("gitVersion"), "{address}: {answer}");
    Ok(answer)
}

fn forwarded(cluster: &ControlPlane, pod: &str) -> Result<()> {
    let mut forward = cluster.command(cluster.kubectl_program());
    forward.args(["port-forward", pod, "0:8080", "--address=127.0.0.1"]).stdout(Stdio::piped());
    let mut forward = forward.spawn()?;
    let answer = first_line(&mut forward).and_then(|line| {
        let local = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
        ask(local.with_context(|| format!("kubectl said {line:?}"))?)
    });
    forward.kill()?;
    forward.wait()?;
    answer.map(drop)
}

fn first_line(child: &mut Child) -> Result<String> {
    // Left with the child: one that finds its pipe closed ends.
    let output = child.stdout.as_mut().context("its output is a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn wait_for(what: &str, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = SystemTime::now();
    while let Err(error) = ask() {
        if begin.elapsed()? > Duration::from_secs(60) {
            bail!("{what} after a minute: {error:#}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A cluster that another program started, so that its starter can be killed.
struct Started {
    starter: Child,
    folder: PathBuf,
}

impl Started {
    fn new() -> Result<Started> {
        let test = std::env::current_exe()?;
        let built = test.parent().and_then(Path::parent).context("tests stand in target/…/deps")?;
        let program = built.join("examples/cluster_with_node");
        let mut starter = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: `cargo test` builds it", program.display()))?;
        let folder = PathBuf::from(first_line(&mut starter)?);
        ensure!(folder.is_dir(), "the cluster did not start; the reason stands above");
        Ok(Started { starter, folder })
    }

    /// Everything of it that could stay behind.
    fn traces(&self) -> Result<Traces> {
        let daemons: Vec<i32> = entries(&self.folder)
            .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
            .map(|path| noted(&path))
            .collect::<Result<_>>()?;
        let containerd = noted(&self.folder.join("containerd.pid"))?;
        let name = format!("portolan-run-{}-", self.starter.id());
        let isolated = mount_namespace(containerd).context("containerd runs")?;
        let shims: Vec<i32> = pids().filter(|pid| mount_namespace(*pid) == Some(isolated)).collect();
        let in_cgroup = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&name))
        };
        let containers: Vec<i32> = pids().filter(in_cgroup).collect();
        // containerd, the kubelet and a shim; CoreDNS and what holds its pod's namespaces.
        ensure!(daemons.len() == 7 && shims.len() >= 3 && containers.len() >= 2);
        let seen_by_containerd = PathBuf::from(format!("/proc/{containerd}/root"));
        let files: Vec<_> = FOLDERS
            .iter()
            .flat_map(|folder| entries(&seen_by_containerd.join(folder)))
            .filter_map(|path| Some(Path::new("/").join(path.strip_prefix(&seen_by_containerd).ok()?)))
            .collect();
        ensure!(files.len() >= FOLDERS.len(), "a shim's socket, a log, a network result: {files:?}");
        let processes = daemons.into_iter().chain(shims).chain(containers).collect();
        Ok(Traces { name, processes, files })
    }

    fn end(mut self) -> Result<()> {
        drop(self.starter.stdin.take());
        let status = self.starter.wait()?;
        ensure!(status.success(), "the starter ended with {status}");
        Ok(())
    }

    fn kill(mut self) -> Result<()> {
        self.starter.kill()?;
        self.starter.wait()?;
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // After a failure in between; what is left is for the next sweep.
        self.starter.kill().ok();
        self.starter.wait().ok();
    }
}

/// Where a kubelet and a containerd leave files whose names are their containers' own.
const FOLDERS: [&str; 4] = ["run/containerd/s", "var/log/containers", "var/log/pods", "var/lib/cni/results"];

/// What a cluster could leave on the machine.
struct Traces {
    /// How the names begin of its network namespace, cgroups and folder.
    name: String,
    processes: Vec<i32>,
    files: Vec<PathBuf>,
}

impl Traces {
    fn assert_gone(&self) -> Result<()> {
        let alive: Vec<_> = self.processes.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(alive.is_empty(), "still alive: {alive:?}");
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(&self.name)).collect();
        assert!(left.is_empty(), "still mounted: {left:?}");
        let hierarchies = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut folders: Vec<_> =
            hierarchies.filter(|path| path.starts_with("/sys/fs/cgroup")).map(PathBuf::from).collect();
        folders.push("/run/netns".into());
        folders.push(portolan_testbed::cache_folder()?.join("runs"));
        let left: Vec<_> = folders.iter().flat_map(|folder| entries(folder)).collect();
        let left: Vec<_> = left.iter().filter(|path| path.to_string_lossy().contains(&self.name)).collect();
        assert!(left.is_empty(), "still there: {left:?}");
        let left: Vec<_> = self.files.iter().filter(|path| path.symlink_metadata().is_ok()).collect();
        assert!(left.is_empty(), "on the machine rather than in the cluster: {left:?}");
        Ok(())
    }
}

/// Where this test runs, inside the shared cluster's network namespace.
fn routes() -> Result<String> {
    let routes = Command::new("ip").args(["-4", "route", "show"]).output()?;
    Ok(String::from_utf8(routes.stdout)?)
}

fn kernel_values() -> Result<Vec<String>> {
    ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"]
        .iter()
        .map(|key| Ok(fs::read_to_string(Path::new("/proc/sys").join(key))?))
        .collect()
}

/// The process id in a pid file; what tells it from others stands behind it.
fn noted(pid_file: &Path) -> Result<i32> {
    let text = fs::read_to_string(pid_file)?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn pids() -> impl Iterator<Item = i32> {
    entries(Path::new("/proc")).filter_map(|path| path.file_name()?.to_str()?.parse().ok())
}

fn mount_namespace(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|file| file.ino())
}

/// A zombie is dead: it waits for a parent that is not ours.
fn is_alive(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !status.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}
