//! What outlives the node's daemons, and how it is removed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use super::cgroups;
use super::mounts::MountNamespace;
use crate::daemon;

/// Ends the containers and their shims, unmounts what is below `folder`, removes the cgroups. The daemons must have
/// ended, or they would start what is ended here anew. A second call finds nothing to do.
pub(crate) fn remove(name: &str, folder: &Path) -> Result<()> {
    // Before the shims, which reap them.
    end_containers(name)?;
    let mounts = MountNamespace::of(folder).file();
    end(|| processes_in(&mounts)).context("cannot end the shims of the containers")?;
    unmount_below(folder)?;
    cgroups::remove(name)
}

/// Ends the containers of clusters whose folder is gone, and removes their cgroups.
pub(crate) fn remove_cgroups(is_orphan: impl Fn(&str) -> bool) -> Result<()> {
    for name in cgroups::names().into_iter().filter(|name| is_orphan(name)) {
        end_containers(&name)?;
        cgroups::remove(&name)?;
    }
    Ok(())
}

fn end_containers(name: &str) -> Result<()> {
    end(|| cgroups::processes(name)).context("cannot end the containers")
}

/// Kills until none is left: one may have started another in between.
fn end(processes: impl Fn() -> Vec<i32>) -> Result<()> {
    for _ in 0..100 {
        let pids = processes();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            daemon::kill(*pid);
        }
        pids.iter().copied().for_each(daemon::wait_for_exit);
    }
    bail!("these processes start others faster than they can be killed: {:?}", processes())
}

/// The processes in the mount namespace that this file holds.
fn processes_in(namespace: &Path) -> Vec<i32> {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let (Some(namespace), Ok(entries)) = (identity(namespace), fs::read_dir("/proc")) else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| identity(Path::new(&format!("/proc/{pid}/ns/mnt"))) == Some(namespace)).collect()
}

/// Deepest first. What is still used goes with its last user.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for mount in below(folder, &mounts).into_iter().rev() {
        unmount(&mount, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    Ok(())
}

/// In the order in which they were mounted.
fn below(folder: &Path, mounts: &str) -> Vec<PathBuf> {
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    paths.map(|path| PathBuf::from(unescape(path))).filter(|path| path.starts_with(folder)).collect()
}

/// The kernel writes a space as `\040`, and likewise tab, newline and backslash.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (written, meant)| path.replace(written, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_meant() {
        let mounts = "a / ext4 rw 0 0\nb /runs/a\\040b ext4 rw 0 0\nc /runs/a\\040b/c tmpfs rw 0 0\nd /runs/a tmpfs rw 0 0\n";
        let found = below(Path::new("/runs/a b"), mounts);
        assert_eq!(found, ["/runs/a b", "/runs/a b/c"].map(PathBuf::from));
    }

    #[test]
    fn processes_are_known_by_their_namespace() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(processes_in(Path::new("/proc/self/ns/mnt")).contains(&own));
        assert!(processes_in(Path::new("/proc/self/ns/net")).is_empty());
    }
}
