//! etcd, the API server and, on request, the controllers and a node: started, described, killed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::daemon::{self, Daemon};
use crate::netns::{Netns, is_root, succeed};
use crate::node::{self, Node};
use crate::programs::{NodePrograms, Programs};
use crate::{cache, certificates};

/// The environment variable that names the description of the control plane a test binary shares.
pub const SHARED: &str = "PORTOLAN_CONTROL_PLANE";

/// The file in a control plane's folder from which [`ControlPlane::attach`] finds everything.
const DESCRIPTION: &str = "control-plane.json";

/// How long a program may take until it answers. Generous: a busy machine of two cores starts slowly.
const START: Duration = Duration::from_secs(180);

/// How to start a control plane.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The network namespace to run in, by name. Fresh, so that the usual ports are free. Without one: on loopback of
    /// wherever the caller runs, on free ports.
    pub netns: Option<String>,
    /// Whether kube-controller-manager runs too (about 3 s more and 100 MiB).
    pub controllers: bool,
    /// Whether there is a node on which pods run, and cluster DNS; the controllers run then too. Needs root, what
    /// [`check_node_requirements`](crate::check_node_requirements) names, and a `netns` made by
    /// [`Netns::create_for_node`].
    pub node: bool,
    /// Where certificates, data and logs stand; it is kept. Default: a folder that goes when the value is dropped.
    pub folder: Option<PathBuf>,
    /// Let the kernel kill the programs when the *thread* that starts them ends. For a main thread: an interrupted
    /// run then leaves no process behind. Wrong in a thread that ends before the control plane is done with.
    pub ends_with_starter: bool,
}

/// A running control plane. What [`ControlPlane::start`] made, drop ends: processes and folder.
#[derive(Debug)]
pub struct ControlPlane {
    description: Description,
    owned: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    programs: Programs,
    folder: PathBuf,
    keep_folder: bool,
    netns: Option<String>,
    api: SocketAddr,
    etcd: Daemon,
    api_server: Daemon,
    controllers: Option<Daemon>,
    node: Option<Node>,
}

impl ControlPlane {
    /// Starts one and returns when it is ready: the programs are built if the cache lacks them (minutes, once).
    ///
    /// # Errors
    /// When a program cannot be built or started, or does not answer within three minutes; the end of its log is in the
    /// message.
    pub fn start(options: &Options) -> Result<ControlPlane> {
        let programs = Programs::build()?;
        let node_programs = if options.node { Some(NodePrograms::build()?) } else { None };
        let keep_folder = options.folder.is_some();
        let folder = match &options.folder {
            Some(folder) => folder.clone(),
            None => run_folder()?,
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let ports = Ports::choose(options.netns.is_some())?;
        let description = describe(programs, node_programs, folder, ports, options, keep_folder)?;
        // From here on a failure drops the value, and that ends what was started.
        let control_plane = ControlPlane { description, owned: true };
        control_plane.bring_up()?;
        Ok(control_plane)
    }

    /// The control plane that `cargo xtask test` started for this test binary.
    ///
    /// # Errors
    /// When the variable [`SHARED`] is unset or the control plane has ended.
    #[allow(
        clippy::disallowed_methods,
        reason = "a test helper with no settings.rs: the test runner speaks by it"
    )]
    pub fn shared() -> Result<ControlPlane> {
        let folder = std::env::var_os(SHARED).with_context(|| {
            format!("{SHARED} is not set: run this test by `cargo xtask test --only apiserver` (or binary, deploy)")
        })?;
        ControlPlane::attach(Path::new(&folder))
    }

    /// The control plane whose folder this is. Dropping it ends nothing, and what is restarted through it lives on
    /// until the control plane is stopped or swept.
    ///
    /// # Errors
    /// When the folder holds no description, or what it describes has ended.
    pub fn attach(folder: &Path) -> Result<ControlPlane> {
        let path = folder.join(DESCRIPTION);
        let file =
            File::open(&path).with_context(|| format!("no control plane: cannot open {}", path.display()))?;
        let description = serde_json::from_reader(file)
            .with_context(|| format!("{} is not a description of a control plane", path.display()))?;
        Ok(ControlPlane { description, owned: false })
    }

    /// The folder of the control plane that runs in the namespace `netns`, if one does and its folder still describes it.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn folder_in(netns: &str) -> Result<Option<PathBuf>> {
        let command = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let commands: Vec<_> = Netns::processes(netns)?.into_iter().map(command).collect();
        Ok(commands.iter().find_map(|command| described(command)))
    }

    /// Leaves it running when this value is dropped; [`ControlPlane::attach`] and [`ControlPlane::stop`] end it.
    pub fn detach(mut self) {
        self.owned = false;
    }

    /// Ends its processes and removes its folder. A second call finds nothing to do.
    pub fn stop(&self) {
        self.end_processes();
        let folder = &self.description.folder;
        if let Err(error) = fs::remove_dir_all(folder)
            && folder.exists()
        {
            crate::programs::say(&format!("{} stays behind: {error}", folder.display()));
        }
    }

    /// An error, with the end of its log, for the first program that does not run.
    ///
    /// # Errors
    /// See above.
    pub fn check(&self) -> Result<()> {
        self.description.daemons().try_for_each(Daemon::check)
    }

    /// Certificates, data, logs and kubeconfigs.
    pub fn folder(&self) -> &Path {
        &self.description.folder
    }

    /// The network namespace it runs in, by name.
    pub fn netns(&self) -> Option<&str> {
        self.description.netns.as_deref()
    }

    /// The address of the API server (TLS).
    pub fn api_address(&self) -> SocketAddr {
        self.description.api
    }

    /// The URL of the API server.
    pub fn url(&self) -> String {
        format!("https://{}", self.description.api)
    }

    /// The certificate of the authority that signed the API server's, a PEM file.
    pub fn certificate_authority(&self) -> PathBuf {
        self.description.pki("ca.crt")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.description.folder.join("kubeconfig")
    }

    /// Where `kubectl` is.
    pub fn kubectl_program(&self) -> &Path {
        &self.description.programs.kubectl
    }

    /// A command that will run `program` where the control plane's addresses exist: inside its namespace, unless the
    /// caller is there already (see [`ControlPlane::shared`]; entering again does no harm).
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = match &self.description.netns {
            Some(netns) => Netns::command_in(netns, program),
            None => Command::new(program.as_ref()),
        };
        command.env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        command
    }

    /// Runs `kubectl` as the administrator and returns its standard output.
    ///
    /// # Errors
    /// When kubectl fails; what it said is in the message.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = succeed(self.command(self.kubectl_program()).args(arguments))?;
        String::from_utf8(output.stdout).context("kubectl printed something that is not UTF-8")
    }

    /// Writes one or several YAML documents to the API server (server-side apply, strict validation).
    ///
    /// # Errors
    /// When the API server refuses one of them; the others may have been written.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
        file.write_all(yaml.as_bytes())?;
        let path = file.path().to_str().context("the temporary folder has a name in UTF-8")?;
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", path])?;
        Ok(())
    }

    /// A token of the ServiceAccount `name`, good for a day.
    ///
    /// # Errors
    /// When there is no such ServiceAccount.
    pub fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=24h"])?;
        Ok(token.trim().to_owned())
    }

    /// A kubeconfig that logs in with a token of the ServiceAccount `name` and has `namespace` as its own.
    ///
    /// # Errors
    /// When there is no such ServiceAccount or the file cannot be written.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.service_account_token(namespace, name)?;
        let path = self.description.folder.join(format!("kubeconfig.{namespace}.{name}"));
        let user = serde_json::json!({ "token": token });
        fs::write(&path, self.description.kubeconfig(namespace, &user))?;
        Ok(path)
    }

    /// Kills the API server and returns when it is gone. etcd keeps what it stored.
    pub fn kill_api_server(&self) {
        self.description.api_server.stop();
    }

    /// Starts the killed API server again, on the same port, and returns when it is ready.
    ///
    /// # Errors
    /// When it does not answer within three minutes.
    pub fn restart_api_server(&self) -> Result<()> {
        self.description.api_server.start()?;
        self.wait_until_ready()
    }

    /// Kills the controllers and the scheduler and starts them again. Where there are several of each they hold a lease
    /// and end by themselves soon after the API server went away; these have none, and would come back to it only some
    /// time after its return, up to a minute.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub fn restart_controllers(&self) -> Result<()> {
        let scheduler = self.description.node.as_ref().map(Node::scheduler);
        self.description.controllers.iter().chain(scheduler).try_for_each(|daemon| {
            daemon.stop();
            daemon.start()
        })
    }

    /// Gives the API server another key to sign ServiceAccount tokens with and to know them by: every token made before
    /// is refused from now on. Returns when it is ready again. The kubelet believes in the tokens that it has handed out;
    /// killed and started again ([`ControlPlane::restart_kubelet`]), it asks for new ones.
    ///
    /// # Errors
    /// When the key cannot be written or the API server is not ready within three minutes.
    pub fn rotate_service_account_key(&self) -> Result<()> {
        self.kill_api_server();
        certificates::write_token_key(&self.description.folder.join("pki"))?;
        self.restart_api_server()
    }

    /// Kills kube-proxy and starts it again; its rules stay meanwhile. Left alone it comes back to an API server that was
    /// away only some time after its return, up to a minute.
    ///
    /// # Errors
    /// Without a node, and when it cannot be started.
    pub fn restart_kube_proxy(&self) -> Result<()> {
        let proxy = self.node()?.kube_proxy();
        proxy.stop();
        proxy.start()
    }

    /// Kills etcd and starts it from its data; returns when the API server is ready again.
    ///
    /// # Errors
    /// When the API server is not ready within three minutes.
    pub fn restart_etcd(&self) -> Result<()> {
        self.description.etcd.stop();
        self.description.etcd.start()?;
        self.wait_until_ready()
    }

    /// The node.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn node(&self) -> Result<&Node> {
        self.description.node.as_ref().context("this control plane has no node: it was started without")
    }

    fn end_processes(&self) {
        self.description.daemons().rev().for_each(Daemon::stop);
        if let Some(node) = &self.description.node
            && let Err(error) = node.remove_traces()
        {
            crate::programs::say(&format!("a part of the node stays behind: {error:#}"));
        }
    }

    fn bring_up(&self) -> Result<()> {
        let description = &self.description;
        let addresses = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V4(Netns::ADDRESS.into()),
            // The Service `kubernetes`, the first of the range.
            IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
        ];
        certificates::write(&description.folder.join("pki"), &addresses, Netns::ADDRESS.into())
            .context("cannot make certificates")?;
        let user = serde_json::json!({
            "client-certificate": description.pki("admin.crt"),
            "client-key": description.pki("admin.key"),
        });
        fs::write(self.kubeconfig(), description.kubeconfig("default", &user))?;
        let text = serde_json::to_string_pretty(description)?;
        fs::write(description.folder.join(DESCRIPTION), text)?;
        if let Some(node) = &description.node {
            node.start_runtime(&description.folder.join("pki"))?;
        }
        description.etcd.start()?;
        description.api_server.start()?;
        if let Some(node) = &description.node {
            node.load_own_images()?;
        }
        self.wait_until_ready()?;
        if let Some(controllers) = &description.controllers {
            controllers.start()?;
        }
        if let Some(node) = &description.node {
            node.start_pods()?;
            self.apply(Node::dns_objects())?;
        }
        if description.controllers.is_some() {
            // Its first visible work: without it no pod is admitted.
            self.wait_for("the controllers", || {
                self.kubectl(&["get", "serviceaccount", "default", "--namespace", "default"])
            })?;
        }
        if description.node.is_some() { self.wait_for_node() } else { Ok(()) }
    }

    fn wait_until_ready(&self) -> Result<()> {
        self.wait_for("the API server", || self.kubectl(&["get", "--raw", "/readyz"]))?;
        self.wait_for("the namespace default", || self.kubectl(&["get", "namespace", "default"]))
    }

    /// Asks until the answer is good: the API server tells nobody when it becomes ready.
    pub(crate) fn wait_for(&self, what: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
        let begin = SystemTime::now();
        loop {
            let Err(error) = ask() else { return Ok(()) };
            self.description.daemons().filter(|daemon| daemon.was_started()).try_for_each(Daemon::check)?;
            if begin.elapsed().unwrap_or_default() > START {
                let log = self.description.api_server.log();
                bail!("{what} did not answer within {START:?}: {error:#}\n{}", daemon::tail(&log));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if self.description.keep_folder {
            // Its logs explain a failed start.
            self.end_processes();
        } else {
            self.stop();
        }
    }
}

/// Fails when the tests of this binary are left out although this is CI. Each test binary that shares a control plane
/// calls it from a test that is never ignored.
///
/// # Panics
/// On CI (the variable `CI` is set) without a control plane.
#[allow(
    clippy::disallowed_methods,
    reason = "a test helper with no settings.rs: the test runner speaks by it"
)]
pub fn assert_not_left_out_on_ci() {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    assert!(
        !is_set("CI") || is_set(SHARED),
        "the tests that need a control plane were left out: on CI run `cargo xtask test`, as root"
    );
}

/// Ends and removes what interrupted runs left behind: processes, folders and namespaces of owners that are gone.
///
/// # Errors
/// When the cache folder cannot be read or a namespace cannot be removed.
pub fn sweep() -> Result<()> {
    for entry in fs::read_dir(runs()?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_orphan(&name) {
            match ControlPlane::attach(&entry.path()) {
                Ok(control_plane) => control_plane.stop(),
                Err(_) => remove_undescribed(&name, &entry.path())?,
            }
        }
    }
    node::remove_cgroups(is_orphan)?;
    let Ok(namespaces) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in namespaces {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_orphan(&name) {
            Netns::remove(&name)?;
        }
    }
    Ok(())
}

/// Ends and removes what is left of the control plane `name` when its folder does not describe it: an interrupt came
/// early, or somebody removed a part of the folder. Its programs are found by their namespaces and cgroup.
///
/// # Errors
/// When something cannot be ended or removed.
pub fn remove_undescribed(name: &str, folder: &Path) -> Result<()> {
    if is_root() {
        Netns::remove(name)?;
        node::remove_traces(name, folder)?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The folder with a description around one of the paths in a command (as `/proc` has it): each program of a control
/// plane has its data, its configuration or its kubeconfig there.
fn described(command: &str) -> Option<PathBuf> {
    let values = command.split('\0').filter_map(|word| Some(word.split_once('=')?.1));
    let folders = values.filter(|value| value.starts_with('/')).flat_map(|path| Path::new(path).ancestors());
    folders.map(Path::to_owned).find(|folder| folder.join(DESCRIPTION).is_file())
}

/// `portolan-run-PID…` whose process has ended.
fn is_orphan(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("portolan-run-") else { return false };
    let pid = rest.split('-').next().unwrap_or_default();
    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
}

fn runs() -> Result<PathBuf> {
    let runs = cache::cache_folder()?.join("runs");
    fs::create_dir_all(&runs)?;
    Ok(runs)
}

fn run_folder() -> Result<PathBuf> {
    let prefix = format!("portolan-run-{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(runs()?)?.keep())
}

struct Ports {
    api: u16,
    etcd: u16,
}

impl Ports {
    fn choose(namespace_of_its_own: bool) -> Result<Ports> {
        if namespace_of_its_own {
            return Ok(Ports { api: 6443, etcd: 2379 });
        }
        // Held together, so that they differ; somebody may take one before its program binds it, which then says so.
        let (api, etcd) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Ports { api: api.local_addr()?.port(), etcd: etcd.local_addr()?.port() })
    }
}

fn describe(
    programs: Programs,
    node_programs: Option<NodePrograms>,
    folder: PathBuf,
    ports: Ports,
    options: &Options,
    keep_folder: bool,
) -> Result<Description> {
    let daemon = |name: &str, program: &Path, arguments: Vec<String>| Daemon {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments,
        folder: folder.clone(),
        netns: options.netns.clone(),
        mounts: None,
        ends_with_starter: options.ends_with_starter,
    };
    let address = match options.netns {
        Some(_) => Ipv4Addr::from(Netns::ADDRESS),
        None => Ipv4Addr::LOCALHOST,
    };
    let api = SocketAddr::from((address, ports.api));
    let etcd_url = format!("http://127.0.0.1:{}", ports.etcd);
    let etcd = daemon("etcd", &programs.etcd, etcd_arguments(&folder, &etcd_url));
    let node = match (node_programs, &options.netns) {
        (None, _) => None,
        (Some(programs), Some(netns)) => Some(Node::describe(netns, programs, &folder, daemon)),
        (Some(_), None) => bail!("a node needs a network namespace of its own"),
    };
    let mut arguments = api_server_arguments(&folder, api, &etcd_url);
    arguments.extend(service_arguments(&folder, node.is_some()));
    let api_server = daemon("kube-apiserver", &programs.kube_apiserver, arguments);
    let controllers = (options.controllers || options.node).then(|| {
        let program = &programs.kube_controller_manager;
        daemon("kube-controller-manager", program, controller_arguments(&folder, node.is_some()))
    });
    let netns = options.netns.clone();
    Ok(Description {
        programs,
        keep_folder,
        netns,
        api,
        etcd,
        api_server,
        controllers,
        node,
        folder: folder.clone(),
    })
}

fn etcd_arguments(folder: &Path, url: &str) -> Vec<String> {
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        // The data lives no longer than the process.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server_arguments(folder: &Path, api: SocketAddr, etcd: &str) -> Vec<String> {
    let pki = |file: &str| folder.join("pki").join(file).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={}", api.port()),
        format!("--advertise-address={}", api.ip()),
        format!("--tls-cert-file={}", pki("api.crt")),
        format!("--tls-private-key-file={}", pki("api.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    if api.ip().is_loopback() {
        // A loopback address may not stand in the endpoints of the Service `kubernetes`.
        arguments.push("--bind-address=127.0.0.1".to_owned());
        arguments.push("--endpoint-reconciler-type=none".to_owned());
    } else {
        arguments.push("--bind-address=0.0.0.0".to_owned());
    }
    arguments
}

/// Without a node nothing carries traffic to Services, so both families are free; with one there are pods to talk to.
fn service_arguments(folder: &Path, node: bool) -> Vec<String> {
    if !node {
        return vec!["--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_owned()];
    }
    let pki = |file: &str| folder.join("pki").join(file).display().to_string();
    vec![
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // For `kubectl logs`, `exec` and `port-forward`.
        format!("--kubelet-client-certificate={}", pki("admin.crt")),
        format!("--kubelet-client-key={}", pki("admin.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

fn controller_arguments(folder: &Path, node: bool) -> Vec<String> {
    let kubeconfig = folder.join("kubeconfig").display().to_string();
    let mut arguments = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--service-account-private-key-file={}", folder.join("pki/sa.key").display()),
        format!("--root-ca-file={}", folder.join("pki/ca.crt").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ];
    if node {
        // In a cluster for work these controllers lose their lease with the API server, and the next leader gives every
        // node its time anew. Ours stay, and would call the node lost as soon as the API server is back: before the
        // kubelet's first word, all pods unready.
        arguments.push("--node-monitor-grace-period=15m".to_owned());
    }
    arguments
}

impl Description {
    fn daemons(&self) -> impl DoubleEndedIterator<Item = &Daemon> {
        let control_plane = [Some(&self.etcd), Some(&self.api_server), self.controllers.as_ref()];
        let node = self.node.iter().flat_map(Node::daemons);
        control_plane.into_iter().flatten().chain(node)
    }

    fn pki(&self, file: &str) -> PathBuf {
        self.folder.join("pki").join(file)
    }

    /// JSON is YAML.
    fn kubeconfig(&self, namespace: &str, user: &serde_json::Value) -> String {
        let cluster = serde_json::json!({
            "server": format!("https://{}", self.api),
            "certificate-authority": self.pki("ca.crt"),
        });
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "portolan", "cluster": cluster }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{
                "name": "portolan",
                "context": { "cluster": "portolan", "user": "user", "namespace": namespace },
            }],
            "current-context": "portolan",
        });
        format!("{config:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_is_known_by_the_commands_of_its_programs() {
        let folder = tempfile::tempdir().unwrap();
        let command = format!("etcd\0--data-dir={}\0", folder.path().join("etcd").display());
        assert_eq!(described(&command), None, "nothing describes it");
        fs::write(folder.path().join(DESCRIPTION), "{}").unwrap();
        assert_eq!(described(&command).as_deref(), Some(folder.path()));
        assert_eq!(described("sh\0-c\0x=1\0"), None);
    }

    #[test]
    fn only_names_of_ended_runs_are_orphans() {
        assert!(!is_orphan(&format!("portolan-run-{}-0", std::process::id())));
        assert!(!is_orphan("portolan"));
        assert!(!is_orphan("portolan-run-x"));
        // Larger than any process id of Linux.
        assert!(is_orphan("portolan-run-4194305-0"));
    }
}
