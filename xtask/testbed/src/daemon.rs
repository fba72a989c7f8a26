//! One background program of the control plane: started with a log file, found again by a pid file, ended by id.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use serde::{Deserialize, Serialize};

use crate::netns;

/// How a program is started, so that any process that reads this can end and restart it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Where its log and its pid file stand.
    pub(crate) folder: PathBuf,
    pub(crate) netns: Option<String>,
    /// The file that holds the mount namespace it runs in, when that is not the machine's own.
    pub(crate) mounts: Option<PathBuf>,
    /// End it together with the thread that started it. Only for starters that live as long as they need it: whoever
    /// reads this from a file is another one, for instance the thread of one test among others.
    #[serde(skip)]
    pub(crate) ends_with_starter: bool,
}

impl Daemon {
    pub(crate) fn start(&self) -> Result<()> {
        let log = File::options().append(true).create(true).open(self.log())?;
        let mut command = self.command();
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A process group of its own: the terminal's Ctrl-C is for the one who started it.
        let child = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        fs::write(self.pid_file(), child.id().to_string())?;
        Ok(())
    }

    /// Kills it and returns when it is gone.
    pub(crate) fn stop(&self) {
        if let Some(pid) = self.pid() {
            kill(pid);
            wait_for_exit(pid);
        }
        fs::remove_file(self.pid_file()).ok();
    }

    /// An error with the end of its log when it no longer runs.
    pub(crate) fn check(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        bail!("{} ended; the end of {}:\n{}", self.name, self.log().display(), tail(&self.log()))
    }

    /// Whether it was started and not stopped, whatever became of it.
    pub(crate) fn was_started(&self) -> bool {
        self.pid_file().exists()
    }

    /// Its process id while it runs. The pid file alone is not believed: the number may be another's by now.
    pub(crate) fn pid(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let running = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        // Until nsenter and setpriv have become the program, theirs are the names.
        let names = [self.program.file_name(), Some("nsenter".as_ref()), Some("setpriv".as_ref())];
        names.contains(&running.file_name()).then_some(pid)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join(format!("{}.pid", self.name))
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if self.netns.is_some() || self.mounts.is_some() {
            words.push("nsenter".into());
            words.extend(self.netns.as_deref().map(netns::entrance));
            words.extend(self.mounts.as_deref().map(|file| flag("--mount=", file)));
            words.push("--".into());
        }
        if self.ends_with_starter {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from));
        }
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

/// The last lines of a log file, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let content = fs::read(log).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let lines: Vec<_> = content.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Kills one process; that it is gone already is no error.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, Signal::KILL).ok();
    }
}

/// Returns when the process is gone; a child of ours is reaped.
pub(crate) fn wait_for_exit(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        // An error here means that nobody can wait for it: nothing better to do than to go on.
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).ok();
    }
    waitpid(Some(pid), WaitOptions::NOHANG).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Daemon {
        Daemon {
            name: "sleeper".into(),
            program: "sleep".into(),
            arguments: vec!["600".into()],
            folder: folder.to_owned(),
            netns: None,
            mounts: None,
            ends_with_starter: false,
        }
    }

    #[test]
    fn starts_and_ends_by_pid() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = sleeper(folder.path());
        daemon.start().unwrap();
        // The pid counts once the child has become the program.
        let pid: i32 = fs::read_to_string(daemon.pid_file()).unwrap().parse().unwrap();
        while daemon.pid().is_none() {
            std::thread::yield_now();
        }
        daemon.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(daemon.check().is_err());
    }

    #[test]
    fn a_pid_file_that_names_another_program_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = sleeper(folder.path());
        fs::write(daemon.pid_file(), std::process::id().to_string()).unwrap();
        assert_eq!(daemon.pid(), None);
        daemon.stop();
    }
}
