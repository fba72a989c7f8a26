//! What interrupted runs left behind, found by its names and folders.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{ControlPlane, DESCRIPTION};
use crate::netns::{Netns, is_root};
use crate::{cache, node};

/// Ends and removes what interrupted runs left behind: processes, folders and namespaces of owners that are gone.
///
/// # Errors
/// When the cache folder cannot be read or a namespace cannot be removed.
pub fn sweep() -> Result<()> {
    for entry in fs::read_dir(runs()?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_orphan(&name) {
            match ControlPlane::attach(&entry.path()) {
                Ok(control_plane) => control_plane.stop(),
                Err(_) => remove_undescribed(&name, &entry.path())?,
            }
        }
    }
    node::remove_cgroups(is_orphan)?;
    let Ok(namespaces) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in namespaces {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_orphan(&name) {
            Netns::remove(&name)?;
        }
    }
    Ok(())
}

/// Ends and removes what is left of the control plane `name` when its folder does not describe it: an interrupt came
/// early, or somebody removed a part of the folder. Its programs are found by their namespaces and cgroup.
///
/// # Errors
/// When something cannot be ended or removed.
pub fn remove_undescribed(name: &str, folder: &Path) -> Result<()> {
    if is_root() {
        Netns::remove(name)?;
        node::remove_traces(name, folder)?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The folder with a description around one of the paths in a command (as `/proc` has it): each program of a control
/// plane has its data, its configuration or its kubeconfig there.
pub(super) fn described(command: &str) -> Option<PathBuf> {
    let values = command.split('\0').filter_map(|word| Some(word.split_once('=')?.1));
    let folders = values.filter(|value| value.starts_with('/')).flat_map(|path| Path::new(path).ancestors());
    folders.map(Path::to_owned).find(|folder| folder.join(DESCRIPTION).is_file())
}

/// `portolan-run-PID…` whose process has ended.
fn is_orphan(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("portolan-run-") else { return false };
    let pid = rest.split('-').next().unwrap_or_default();
    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
}

fn runs() -> Result<PathBuf> {
    let runs = cache::cache_folder()?.join("runs");
    fs::create_dir_all(&runs)?;
    Ok(runs)
}

pub(super) fn run_folder() -> Result<PathBuf> {
    let prefix = format!("portolan-run-{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(runs()?)?.keep())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_is_known_by_the_commands_of_its_programs() {
        let folder = tempfile::tempdir().unwrap();
        let command = format!("etcd\0--data-dir={}\0", folder.path().join("etcd").display());
        assert_eq!(described(&command), None, "nothing describes it");
        fs::write(folder.path().join(DESCRIPTION), "{}").unwrap();
        assert_eq!(described(&command).as_deref(), Some(folder.path()));
        assert_eq!(described("sh\0-c\0x=1\0"), None);
    }

    #[test]
    fn only_names_of_ended_runs_are_orphans() {
        assert!(!is_orphan(&format!("portolan-run-{}-0", std::process::id())));
        assert!(!is_orphan("portolan"));
        assert!(!is_orphan("portolan-run-x"));
        // Larger than any process id of Linux.
        assert!(is_orphan("portolan-run-4194305-0"));
    }
}
