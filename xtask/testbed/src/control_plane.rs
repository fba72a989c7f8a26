//! etcd, the API server and, on request, the controllers and a node: started, described, killed.

mod description;
mod outage;
mod sweep;

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use self::description::{Description, Ports, describe};
use self::sweep::{described, run_folder};
pub use self::sweep::{remove_undescribed, sweep};
use crate::certificates;
use crate::daemon::{self, Daemon};
use crate::netns::{Netns, succeed};
use crate::node::Node;
use crate::programs::{NodePrograms, Programs};

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
