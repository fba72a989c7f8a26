//! The cgroup below which all pods of a cluster live, in each hierarchy of version 1 and in version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Makes the cgroup `/name` everywhere; the kubelet refuses a root that does not exist.
pub(super) fn create(name: &str) -> Result<()> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no cgroups are mounted below /sys/fs/cgroup: the kubelet needs them");
    }
    for hierarchy in hierarchies {
        let cgroup = hierarchy.join(name);
        // Version 2 hands its controllers down one by one; on a hybrid machine it has none.
        let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
        for controller in controllers.split_whitespace() {
            // One that cannot be handed down is missed by the kubelet, which says so.
            fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        for controller in controllers.split_whitespace() {
            fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
        copy_cpuset(&hierarchy, &cgroup)?;
        prefer(&cgroup)?;
    }
    Ok(())
}

/// In a cluster for work the control plane and whoever sends the load have machines of their own. Here all pods together
/// would weigh as much as one of their threads, and a busy machine would stop the pods for seconds: they go first.
fn prefer(cgroup: &Path) -> Result<()> {
    // The most that version 1 and version 2 take.
    for (file, most) in [("cpu.shares", "262144"), ("cpu.weight", "10000")] {
        let path = cgroup.join(file);
        if path.exists() {
            fs::write(&path, most).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The processes in the cgroup `/name` and below.
pub(super) fn processes(name: &str) -> Vec<i32> {
    let roots = hierarchies().unwrap_or_default().into_iter().map(|hierarchy| hierarchy.join(name));
    let mut pids: Vec<i32> = roots
        .flat_map(|root| tree(&root))
        .filter_map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Removes the cgroup `/name` everywhere; its processes must have ended.
pub(super) fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        for cgroup in tree(&hierarchy.join(name)).into_iter().rev() {
            remove_one(&cgroup).with_context(|| format!("cannot remove {}", cgroup.display()))?;
        }
    }
    Ok(())
}

/// The names of the cgroups at the top.
pub(super) fn names() -> Vec<String> {
    let hierarchies = hierarchies().unwrap_or_default();
    let entries = hierarchies.iter().filter_map(|hierarchy| fs::read_dir(hierarchy).ok()).flatten();
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// The kernel lets go of a cgroup a moment after its last process, and tells nobody.
fn remove_one(cgroup: &Path) -> std::io::Result<()> {
    let mut attempts = 200;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && attempts > 0 => {
                attempts -= 1;
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

/// The folder and all below it, parents first; nothing when there is none.
fn tree(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut folders = vec![root.to_owned()];
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.extend(tree(&entry.path()));
        }
    }
    folders
}

/// In version 1 no process may enter a cgroup whose processors and memory nodes are not named.
fn copy_cpuset(hierarchy: &Path, cgroup: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if hierarchy.join(file).exists() {
            fs::write(cgroup.join(file), fs::read_to_string(hierarchy.join(file))?)?;
        }
    }
    Ok(())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(cgroup_mounts(&mounts))
}

fn cgroup_mounts(mounts: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(path), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next())
            && path.starts_with("/sys/fs/cgroup")
        {
            paths.push(PathBuf::from(path));
        }
    }
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_found() {
        let mounts = "proc /proc proc rw 0 0\n\
            cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            tmpfs /sys/fs/cgroup tmpfs rw 0 0\n";
        let found = cgroup_mounts(mounts);
        assert_eq!(found, ["/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }

    #[test]
    fn parents_stand_before_their_children() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        let found = tree(root.path());
        assert_eq!(found, [root.path().to_owned(), root.path().join("a"), root.path().join("a/b")]);
        assert!(tree(&root.path().join("absent")).is_empty());
    }
}
