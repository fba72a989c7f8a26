//! Replacing a file so that there is a whole one at every moment.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::beside;

/// Writes a new file beside the one at `path`, for this user alone, and puts it in its place once it is on the disk.
pub(super) fn replace<T>(path: &Path, write: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    // The name is always the same: what a killed process left there is replaced and does not pile up.
    let new = beside(path)?;
    remove(&new)?;
    let written = fill(&new, write).and_then(|written| std::fs::rename(&new, path).map(|()| written));
    match written {
        // Else the folder may forget the new name when the machine loses its power.
        Ok(written) => folder(path)?.sync_all().map(|()| written),
        Err(error) => {
            // A full disk should not stay full for what is of no use.
            remove(&new)?;
            Err(error)
        }
    }
}

fn fill<T>(new: &Path, write: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let written = write(&file)?;
    file.sync_all()?;
    Ok(written)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder(path: &Path) -> io::Result<File> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder),
        _ => File::open("."),
    }
}
