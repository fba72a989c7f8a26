//! One background program of the control plane: started with a log file, found again by a pid file, ended by id.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
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
        let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let noted = Identity::of(child.id())
            .context("it ended at once")
            .and_then(|identity| Ok(fs::write(self.pid_file(), identity.to_string())?));
        if noted.is_err() {
            // Nobody would find it again.
            child.kill().and_then(|()| child.wait()).ok();
            fs::remove_file(self.pid_file()).ok();
        }
        noted.with_context(|| {
            format!("cannot note the process of {} in {}", self.name, self.pid_file().display())
        })
    }

    /// Kills it and returns when it is gone.
    pub(crate) fn stop(&self) {
        if let Some(pid) = self.pid() {
            if !kill(pid) {
                crate::programs::say(&format!("{} (process {pid}) is another user's and runs on", self.name));
                return;
            }
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

    /// Its process id while it runs. The number alone is not believed: it may be another's by now, even that of the
    /// machine's own containerd after a restart of the machine.
    pub(crate) fn pid(&self) -> Option<i32> {
        let noted = fs::read_to_string(self.pid_file()).ok()?;
        let pid: i32 = noted.split_whitespace().next()?.parse().ok()?;
        let now = Identity::of(u32::try_from(pid).ok()?)?;
        (now.to_string() == noted.trim() && !now.is_zombie).then_some(pid)
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

/// What tells a process from every other one, before it and after it.
struct Identity {
    pid: u32,
    /// When it began, in ticks since the machine did. It stays when nsenter and setpriv become the program.
    began: u64,
    /// The start of the machine that this was.
    boot: String,
    /// It has ended and waits for its parent to look.
    is_zombie: bool,
}

impl Identity {
    fn of(pid: u32) -> Option<Identity> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, parentheses too. Behind it: the state, and as the twentieth the begin.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let is_zombie = fields.next()? == "Z";
        let began = fields.nth(18)?.parse().ok()?;
        Some(Identity { pid, began, boot, is_zombie })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.began, self.boot)
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

/// Kills one process; that it is gone already is no error. False if this user may not: then nobody should wait for it.
pub(crate) fn kill(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL) != Err(Errno::PERM))
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
        let pid = daemon.pid().unwrap();
        daemon.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(daemon.check().is_err());
    }

    #[test]
    fn a_number_that_is_another_programs_by_now_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = sleeper(folder.path());
        // A program of the same name, as the machine may have its own containerd.
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = Identity::of(other.id()).unwrap();
        let before = Identity { began: identity.began - 1, boot: identity.boot.clone(), ..identity };
        let last_boot = Identity { boot: "of-the-day-before".into(), ..Identity::of(other.id()).unwrap() };
        for noted in [before.to_string(), last_boot.to_string(), other.id().to_string()] {
            fs::write(daemon.pid_file(), noted).unwrap();
            assert_eq!(daemon.pid(), None);
            daemon.stop();
        }
        assert_eq!(other.try_wait().unwrap(), None, "it was not killed");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn what_cannot_be_noted_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let unlike_others = format!("600.{}", std::process::id());
        let daemon = Daemon { arguments: vec![unlike_others.clone()], ..sleeper(folder.path()) };
        fs::create_dir(daemon.pid_file()).unwrap();
        let error = format!("{:#}", daemon.start().unwrap_err());
        assert!(error.contains("sleeper.pid"), "{error}");
        let words =
            |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let commands = fs::read_dir("/proc").unwrap().map(|entry| words(entry.unwrap()));
        let left: Vec<_> =
            commands.filter(|words| words.split('\0').any(|word| word == unlike_others)).collect();
        assert_eq!(left, Vec::<String>::new(), "it was ended");
    }
}
