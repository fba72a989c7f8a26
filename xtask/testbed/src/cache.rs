//! The user's cache folder, where everything built once or left over by a run stands.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$PORTOLAN_CACHE`, else `$XDG_CACHE_HOME/portolan`, else `~/.cache/portolan`. The folder exists afterwards.
///
/// # Errors
/// When none of the variables (with `HOME` the last) is set, or the folder cannot be made.
#[allow(
    clippy::disallowed_methods,
    reason = "a development tool with no settings.rs: the cache is the user's"
)]
pub fn cache_folder() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("PORTOLAN_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("portolan")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/portolan")))
        .context("no cache folder: set PORTOLAN_CACHE, XDG_CACHE_HOME or HOME")?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot resolve {}", folder.display()))
}

/// Waits for and holds the lock file `folder/lock` until dropped; the operating system frees it with the process.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
