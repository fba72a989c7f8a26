//! Whether a node that has ended left something behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use portolan_testbed::cache_folder;

/// The machine as it was before a node of this process was started.
pub(super) struct Before {
    routes: String,
}

impl Before {
    pub(super) fn look() -> Result<Before> {
        Ok(Before { routes: routes()? })
    }

    /// An error that names each process, mount, network namespace, cgroup, folder and change of routes that is left.
    pub(super) fn check(&self) -> Result<()> {
        // What a node of this process makes is named so.
        let mut left = named(&format!("portolan-run-{}-", std::process::id()))?;
        if routes()? != self.routes {
            left.push(format!("routes of this machine: {}", routes()?));
        }
        if !left.is_empty() {
            bail!("the node left something behind:\n{}", left.join("\n"));
        }
        Ok(())
    }
}

fn named(name: &str) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut left: Vec<_> =
        mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")).collect();
    let mut folders = vec![cache_folder()?.join("runs"), "/run/netns".into(), "/sys/fs/cgroup".into()];
    folders.extend(entries(Path::new("/sys/fs/cgroup")));
    let paths = folders.iter().flat_map(|folder| entries(folder));
    left.extend(
        paths.filter(|path| file_name(path).starts_with(name)).map(|path| path.display().to_string()),
    );
    let own = std::process::id().to_string();
    for process in entries(Path::new("/proc")) {
        let is_number = file_name(&process).bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || file_name(&process) == own || has_ended(&process) {
            continue;
        }
        // A process that ends meanwhile is gone, as it should be.
        let text = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&text("cmdline")).replace('\0', " ");
        if command.contains(name) || String::from_utf8_lossy(&text("cgroup")).contains(name) {
            left.push(format!("process {} {command}", file_name(&process)));
        }
    }
    Ok(left)
}

/// Whether only its exit code is left, until the machine's first process has taken note of it.
fn has_ended(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    // Behind the program's name, which may contain anything.
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// What is in a folder; nothing if there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The destinations alone: a counter of uses stands in the same table.
fn routes() -> Result<String> {
    let table = fs::read_to_string("/proc/net/route")?;
    let route = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let mut routes: Vec<_> = table.lines().skip(1).map(route).collect();
    routes.sort();
    Ok(routes.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_is_left_is_named() {
        let name = format!("portolan-trace-{}-", std::process::id());
        assert_eq!(named(&name).unwrap(), Vec::<String>::new());
        let mut process = Command::new("sleep").arg0(&name).arg("60").spawn().unwrap();
        // The kernel lets go of the parent a moment before the new program's arguments can be read.
        while fs::read(format!("/proc/{}/cmdline", process.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let left = named(&name).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].contains(&format!("process {}", process.id())), "{left:?}");
    }
}
