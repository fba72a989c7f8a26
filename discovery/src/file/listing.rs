//! Which manifest files there are below a folder.

use std::collections::BTreeMap;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders deeper than this are not entered.
const DEEPEST: usize = 16;

/// What is below a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The manifest files. Hidden ones are passed over: they are an editor's, or the folders behind the links of a
    /// ConfigMap, which are found by the links.
    pub(super) files: BTreeMap<PathBuf, Metadata>,
    /// Folders, and what may be one or a manifest, that could not be looked into, and why.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
}

impl Listing {
    /// # Errors
    /// If the folder itself cannot be read.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        let identity = identity(&std::fs::metadata(root)?);
        listing.enter(root, &mut vec![identity])?;
        Ok(listing)
    }

    /// `above` are the folders on the way here, with this one.
    fn enter(&mut self, folder: &Path, above: &mut Vec<(u64, u64)>) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.look_at(&entry, above);
            }
        }
        Ok(())
    }

    fn look_at(&mut self, entry: &DirEntry, above: &mut Vec<(u64, u64)>) {
        let path = entry.path();
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                let is_other_file = entry.file_type().is_ok_and(|it| it.is_file()) && !is_manifest(&path);
                if !is_other_file {
                    self.miss(path, &error);
                }
                return;
            }
        };
        if metadata.is_file() && is_manifest(&path) {
            self.files.insert(path, metadata);
            return;
        }
        let identity = identity(&metadata);
        // A symbolic link may lead back up.
        if metadata.is_dir() && above.len() <= DEEPEST && !above.contains(&identity) {
            above.push(identity);
            if let Err(error) = self.enter(&path, above) {
                self.miss(path, &error);
            }
            above.pop();
        }
    }

    /// What went away since, or a link that leads nowhere, is not there; anything else is there unseen.
    fn miss(&mut self, path: PathBuf, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.unreadable.insert(path, format!("it cannot be read: {error}"));
        }
    }
}

/// The device and inode.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|it| {
        it.eq_ignore_ascii_case("yaml") || it.eq_ignore_ascii_case("yml") || it.eq_ignore_ascii_case("json")
    })
}
