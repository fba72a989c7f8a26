//! The machine: its cores, and what it allows.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// So many connections are held at once, and a proxy may need two descriptors for each.
const OPEN_FILES: u64 = 20_000;

/// The two cores of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    /// The proxy has this one for itself.
    pub(super) proxy: usize,
    /// Upstreams, load and this process share this one.
    pub(super) load: usize,
}

impl Cores {
    /// The first two that this process may run on.
    ///
    /// # Errors
    /// If there are fewer: then the proxy would be measured waiting for its own load.
    pub(super) fn of_this_process() -> anyhow::Result<Self> {
        let set = sched_getaffinity(None).context("cannot ask which cores this process may use")?;
        Self::first_of((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)))
    }

    fn first_of(cores: impl Iterator<Item = usize>) -> anyhow::Result<Self> {
        let found: Vec<_> = cores.take(2).collect();
        let &[proxy, load] = found.as_slice() else {
            bail!(
                "comparing proxies needs two cores, one for the proxy and one for the load, but this process may use \
                 only {}; run it on a machine (or in a cpuset) with two",
                found.len()
            );
        };
        Ok(Self { proxy, load })
    }

    /// Keeps this thread, and what it starts, off the proxy's core.
    pub(super) fn stay_on_load(self) -> anyhow::Result<()> {
        sched_setaffinity(None, &only(self.load)).context("cannot bind this process to a core")
    }

    /// Starts something on the proxy's core. A child has the cores of the thread that starts it, from its first
    /// instruction on; so no thread of its own can have been begun elsewhere.
    pub(super) fn on_proxy<T>(self, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        let before = sched_getaffinity(None)?;
        sched_setaffinity(None, &only(self.proxy)).context("cannot bind a proxy to its core")?;
        let started = start();
        sched_setaffinity(None, &before)?;
        Ok(started)
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Raises the limit of open files of this process and what it starts.
///
/// # Errors
/// If it stays below what the idle connections need.
pub(super) fn raise_open_files() -> anyhow::Result<()> {
    let limit = rlimit::increase_nofile_limit(OPEN_FILES).context("cannot raise the limit of open files")?;
    if limit < OPEN_FILES {
        bail!(
            "9,000 connections through a proxy need {OPEN_FILES} open files, and this user may have {limit}: raise the \
             hard limit (`ulimit -Hn`, or LimitNOFILE= of the service)"
        );
    }
    Ok(())
}

/// The machine in one line: cores, processor, memory, kernel.
pub(super) fn described() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field(&cpus, "model name").unwrap_or_else(|| "unknown processor".to_owned());
    // Not those that this process may use: it binds itself to one.
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let gib = kib.map_or(0, |kib| (kib + (1 << 19)) >> 20);
    format!("{cores} cores ({processor}), {gib} GiB, Linux {}", kernel.trim())
}

/// What a program says of itself, on either output.
pub(super) fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let both = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&both).trim().to_owned())
}

/// The first thing that looks like a version: `2.8.25`. What stands before the word itself does not count; it may be a
/// path with other versions in it.
pub(super) fn version_in(text: &str) -> Option<&str> {
    let word = ["version", "Version"].iter().filter_map(|word| text.find(word)).min();
    let text = &text[word.unwrap_or(0)..];
    let is_version = |word: &&str| {
        let parts: Vec<_> = word.split('.').collect();
        (2..=4).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u32>().is_ok())
    };
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').find(is_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_needed_and_any_two_will_do() {
        assert_eq!(Cores::first_of([4, 6, 7].into_iter()).unwrap(), Cores { proxy: 4, load: 6 });
        let error = Cores::first_of([3].into_iter()).unwrap_err().to_string();
        assert!(error.contains("needs two cores") && error.contains("only 1"), "{error}");
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("HAProxy version 2.8.25-0deb12 2026/02/03 - https://haproxy.org/", Some("2.8.25")),
            ("nginx version: nginx/1.31.3", Some("1.31.3")),
            ("/peers/haproxy-2.8.25/envoy  version: 2b5a8/1.40.0/Clean/RELEASE/BoringSSL", Some("1.40.0")),
            ("Version:      3.7.15\nCodename:     x\nGo version:   go1.26.1", Some("3.7.15")),
            ("portolan 0.1.0", Some("0.1.0")),
            ("no such option", None),
        ] {
            assert_eq!(version_in(said), version, "{said}");
        }
    }

    #[test]
    fn a_child_runs_on_the_proxys_core_and_its_starter_does_not() {
        let before = sched_getaffinity(None).unwrap();
        let Ok(cores) = Cores::of_this_process() else {
            assert!(before.count() < 2, "with two cores there is no error");
            return;
        };
        let mut grep = Command::new("grep");
        let output = cores.on_proxy(|| grep.args(["Cpus_allowed_list", "/proc/self/status"]).output());
        let text = String::from_utf8(output.unwrap().unwrap().stdout).unwrap();
        assert_eq!(text.split_whitespace().nth(1), Some(cores.proxy.to_string().as_str()));
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
