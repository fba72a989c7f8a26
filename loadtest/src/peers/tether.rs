//! Processes that end with this one, whatever ends it.
//!
//! What is dropped here ends its processes, but nothing is dropped by `SIGKILL`: proxies would stay on their ports. The
//! kernel can tell a process that its parent is gone; it must ask for that itself. So each is started through this program,
//! which asks and then becomes the other.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The options of `tethered`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The process that starts it.
    parent: i32,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command; it gets SIGTERM when its parent ends.
///
/// # Errors
/// If that cannot be, or the parent is gone already.
pub(crate) fn run(options: &Options) -> anyhow::Result<std::process::ExitCode> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask for word of the parent's end")?;
    // It may have ended before it was asked for.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != options.parent) {
        bail!("process {} is gone", options.parent);
    }
    let (program, arguments) = options.command.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// The same command, started through `ourselves`. What it does not say of its environment is empty.
pub(super) fn tethered(ourselves: &Path, command: &Command) -> Command {
    let mut tethered = Command::new(ourselves);
    tethered.arg("tethered").arg(std::process::id().to_string()).arg("--");
    tethered.arg(command.get_program()).args(command.get_args()).env_clear();
    tethered.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        tethered.current_dir(folder);
    }
    tethered
}
