//! A folder of Kubernetes manifests as a source: the same Services and EndpointSlices, read by the same translation, with
//! no Kubernetes cluster.
//!
//! ```text
//! watcher (notify, and a slow look around) ──► folder: which files changed ──► manifest: text → objects
//!                                                 │ last good objects of a file that is broken now
//!                                                 └──► Index ──► translate ──► Sink
//! ```
//!
//! A file may be written in place, renamed over, or swapped by a symbolic link as Kubernetes does with the folder of
//! a ConfigMap. One that cannot be read is a finding on the file, and what it said last stays in force until it is
//! mended or removed. One that lost objects by a write in place may be half written: it is taken as it is once it has
//! stayed so for two seconds.

mod folder;
mod listing;
mod manifest;
mod source;
#[cfg(test)]
mod tests;
mod watcher;

use std::io;
use std::path::Path;

use portolan_model::Finding;

pub use manifest::Object;
pub use source::FileSource;

use crate::merge::Merge;
use crate::translate::{Index, TranslateConfig};
use folder::{Folder, Picture, place};

/// Reads every manifest in `dir` once: the objects, and what is wrong with the files. Objects without a namespace get
/// `default_namespace`.
///
/// # Errors
/// If `dir` is not a folder that can be read.
pub fn load(dir: &Path, default_namespace: &str) -> io::Result<(Vec<Object>, Vec<Finding>)> {
    let picture = picture(dir, default_namespace)?;
    Ok((picture.objects, picture.findings.into_values().flatten().collect()))
}

fn picture(dir: &Path, default_namespace: &str) -> io::Result<Picture> {
    let mut folder = Folder::new(dir, default_namespace);
    folder.scan()?;
    Ok(folder.picture())
}

/// Everything that Portolan would find wrong if it ran on `dir`: with the files, with each object, and between objects.
/// Sorted.
///
/// # Errors
/// If `dir` is not a folder that can be read.
pub fn check(dir: &Path, config: &TranslateConfig) -> io::Result<Vec<Finding>> {
    let Picture { objects, findings, places } = picture(dir, &config.default_namespace)?;
    let mut findings: Vec<_> = findings.into_values().flatten().collect();
    let mut index = Index::new();
    for object in objects {
        index.apply(object.into());
    }
    let mut merge = Merge::default();
    for key in index.keys() {
        if let Some(contribution) = index.contribution(&key, config) {
            merge.upsert(0, key, contribution);
        }
    }
    let mut between = merge.findings();
    for finding in &mut between {
        if let Some(path) = places.get(&finding.resource) {
            place(finding, path);
        }
    }
    findings.extend(between);
    findings.sort();
    findings.dedup();
    Ok(findings)
}
