//! Network namespaces: addresses and ports of a test's own, with no way out.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::daemon;

/// A network namespace with `10.0.0.0/8` and `fd00:10::/64` on its loopback device: every address in them can be
/// bound and dialled inside. There is no other device, so nothing leaves the namespace.
///
/// Dropping it kills what still runs inside, by process id, and removes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    keep: bool,
}

impl Netns {
    /// The address under which everything inside is reached unless it binds another one.
    pub const ADDRESS: [u8; 4] = [10, 250, 0, 1];

    /// Makes the namespace `name`. Needs root and `ip` (Debian: `iproute2`).
    ///
    /// # Errors
    /// When not root, `ip` or `nsenter` is missing, or the namespace exists already.
    pub fn create(name: &str) -> Result<Netns> {
        let netns = Netns::add(name)?;
        netns.set_up().with_context(|| format!("cannot set up the network namespace {name}"))?;
        Ok(netns)
    }

    /// Makes the namespace `name` for a control plane with a node. Its addresses are fewer: 10.250.0.1 is the node's,
    /// and the rest of 10/8 belongs to pods and Services.
    ///
    /// # Errors
    /// As [`Netns::create`], and when the kernel cannot filter what crosses a bridge (the module `br_netfilter`).
    pub fn create_for_node(name: &str) -> Result<Netns> {
        let netns = Netns::add(name)?;
        netns.set_up_for_node().with_context(|| format!("cannot set up the network namespace {name}"))?;
        Ok(netns)
    }

    /// Whether a namespace of this name exists.
    pub fn exists(name: &str) -> bool {
        path_of(name).exists()
    }

    /// The processes in the namespace `name`; none when there is no such namespace.
    pub(crate) fn processes(name: &str) -> Result<Vec<i32>> {
        if !Netns::exists(name) {
            return Ok(Vec::new());
        }
        let inside = ip(&["netns", "pids", name])?;
        Ok(inside.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Removes the namespace `name` with everything that runs inside; nothing happens when there is none.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn remove(name: &str) -> Result<()> {
        if !Netns::exists(name) {
            return Ok(());
        }
        let pids = Netns::processes(name)?;
        for pid in &pids {
            daemon::kill(*pid);
        }
        for pid in pids {
            daemon::wait_for_exit(pid);
        }
        ip(&["netns", "delete", name])?;
        Ok(())
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run `program` inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        Netns::command_in(&self.name, program)
    }

    /// A command that will run `program` inside the namespace `name`. The process that starts becomes `program`:
    /// its id is the program's id.
    pub fn command_in(name: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(entrance(name)).arg("--").arg(program.as_ref());
        command
    }

    /// Leaves the namespace in place when this value is dropped.
    pub fn keep(mut self) {
        self.keep = true;
    }

    fn add(name: &str) -> Result<Netns> {
        if !is_root() {
            bail!("a network namespace needs root: run as root, or do without one");
        }
        ip(&["netns", "add", name]).context("cannot add a network namespace")?;
        Ok(Netns { name: name.to_owned(), keep: false })
    }

    fn set_up(&self) -> Result<()> {
        let name = self.name.as_str();
        let [a, b, c, d] = Netns::ADDRESS;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        // The prefix makes all of 10/8 local: an address is taken by binding it.
        ip(&["-n", name, "addr", "add", &format!("{a}.{b}.{c}.{d}/8"), "dev", "lo"])?;
        if Path::new("/proc/net/if_inet6").exists() {
            ip(&["-n", name, "-6", "addr", "add", "fd00:10::1/64", "dev", "lo", "nodad"])?;
            ip(&["-n", name, "-6", "route", "add", "local", "fd00:10::/64", "dev", "lo"])?;
            self.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
        }
        self.sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    }

    fn set_up_for_node(&self) -> Result<()> {
        let name = self.name.as_str();
        let [a, b, c, d] = Netns::ADDRESS;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{a}.{b}.{c}.{d}/32"), "dev", "lo"])?;
        // A Service's address must have a route before kube-proxy's rules can turn it into a pod's.
        ip(&["-n", name, "route", "add", "10.96.0.0/16", "dev", "lo"])?;
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
        // Answers between two pods on the bridge pass kube-proxy's rules too: without that, a pod that called a Service
        // would be answered by an address it never called.
        let bridged = "net/bridge/bridge-nf-call-iptables";
        if !Path::new("/proc/sys").join(bridged).exists() {
            succeed(Command::new("modprobe").arg("br_netfilter"))
                .context("kube-proxy needs the kernel module br_netfilter")?;
            leave_the_machines_bridges_alone()?;
        }
        self.sysctl(bridged, "1")
    }

    fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let script = format!("echo {value} > /proc/sys/{key}");
        succeed(self.command("sh").args(["-c", &script]))?;
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = Netns::remove(&self.name)
        {
            crate::programs::say(&format!("the network namespace {} stays behind: {error:#}", self.name));
        }
    }
}

/// Once loaded, br_netfilter would pass what crosses the machine's own bridges (of virtual machines, say) through the
/// machine's packet filter. It did not before.
fn leave_the_machines_bridges_alone() -> Result<()> {
    for tables in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{tables}");
        fs::write(&path, "0").with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// Whether this process may make network namespaces.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The argument by which nsenter enters the namespace `name`.
pub(crate) fn entrance(name: &str) -> OsString {
    let mut argument = OsString::from("--net=");
    argument.push(path_of(name));
    argument
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = succeed(Command::new("ip").args(arguments))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end; a failure carries what it said.
pub(crate) fn succeed(command: &mut Command) -> Result<Output> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let program = command.get_program().display();
            bail!(
                "`{program}` is not on the PATH: install it (Debian: iproute2 for ip, util-linux for nsenter)"
            )
        }
        Err(error) => return Err(error).with_context(|| format!("cannot run `{shown}`")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    Ok(output)
}
