//! What the steps need on the machine, installed when it is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use portolan_testbed::{cache_folder, check_node_requirements, is_root, missing_packages};

const CARGO_DENY: &str = "0.20.2";

/// `cargo`, without a standard input that it could wait for, and without what `cargo run` told xtask about itself: some
/// build scripts watch those variables, so half of the dependencies would be compiled anew each time that a person's
/// cargo and ours take turns.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command with its output on the terminal; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// The command as a person would type it, without its environment.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Where cargo-deny is; it is installed into the cache first when it is missing (about a minute).
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = cache_folder()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        println!("installing cargo-deny {CARGO_DENY} into {}, once", root.display());
        // Unoptimised: it works for a second per run, and compiles in a third of the time. cargo moves the finished
        // program into place and keeps concurrent installations apart by itself.
        let mut install = cargo();
        install
            .args(["install", "--locked", "--debug", "--version", CARGO_DENY, "cargo-deny", "--root"])
            .arg(root);
        run(&mut install).context("cannot install cargo-deny")?;
    }
    Ok(program)
}

/// Installs valgrind, if it is missing.
pub(crate) fn valgrind() -> Result<()> {
    if present("valgrind") {
        return Ok(());
    }
    if !is_root() || !present("apt-get") {
        bail!("valgrind is missing on the PATH: install it");
    }
    install(&["valgrind"])
}

/// Installs the Debian packages of the programs that network namespaces need, if one is missing.
pub(crate) fn network_tools() -> Result<()> {
    let missing: Vec<_> = [("ip", "iproute2"), ("nsenter", "util-linux"), ("setpriv", "util-linux")]
        .into_iter()
        .filter(|(program, _)| !present(program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    if !is_root() || !present("apt-get") {
        bail!("missing on the PATH: {}; install {}", programs.join(", "), packages.join(", "));
    }
    install(&packages)
}

/// Installs the Debian packages of the programs that a node needs, if one is missing.
pub(crate) fn node_tools() -> Result<()> {
    let missing = missing_packages();
    let can_install = is_root() && cfg!(target_os = "linux") && Path::new("/etc/debian_version").exists();
    if !missing.is_empty() && can_install {
        install(&missing)?;
        if missing.contains(&"containerd") {
            stop_containerd_service()?;
        }
    }
    check_node_requirements()
}

/// The package starts one for the machine; a node starts its own.
fn stop_containerd_service() -> Result<()> {
    if Path::new("/run/systemd/system").exists() {
        run(Command::new("systemctl").args(["disable", "--now", "containerd.service"]))?;
    }
    Ok(())
}

fn present(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn install(packages: &[&str]) -> Result<()> {
    println!("installing {}", packages.join(", "));
    run(Command::new("apt-get").args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    // Never at the price of another package: that of Docker's makers conflicts with Debian's containerd and runc.
    install.args(["install", "-q", "-y", "--no-install-recommends", "--no-remove"]).args(packages);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}
