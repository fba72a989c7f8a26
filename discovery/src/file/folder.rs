//! The manifest files of a folder, and what each said last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portolan_model::{Finding, ResourceRef};

use super::manifest::{self, Object};

/// A manifest larger than this is not read: somebody put something else there.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Folders deeper than this are not entered: a symbolic link leads back up.
const DEEPEST: usize = 16;
/// A file that was written so shortly before it was read may have been written again within the resolution of its time.
const TIME_RESOLUTION: Duration = Duration::from_millis(100);

/// The files below a folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    default_namespace: Arc<str>,
    files: BTreeMap<PathBuf, Entry>,
}

/// A file as it was read last.
#[derive(Debug, Default)]
struct Entry {
    stamp: Option<Stamp>,
    /// What its last good state said.
    objects: Vec<Object>,
    findings: Vec<Finding>,
}

/// What tells whether a file is still the same without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    identity: (u64, u64),
    length: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

/// What all files say together.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) objects: Vec<Object>,
    /// Faults of files and between files, by the file at fault. A file without faults is not here.
    pub(super) findings: BTreeMap<ResourceRef, Vec<Finding>>,
}

impl Folder {
    pub(super) fn new(root: &Path, default_namespace: &str) -> Self {
        Self { root: root.to_owned(), default_namespace: default_namespace.into(), files: BTreeMap::new() }
    }

    /// Reads the files that are new or changed, and forgets those that are gone. Returns whether there were any.
    ///
    /// # Errors
    /// If the folder itself cannot be read; then everything stays as it was.
    pub(super) fn scan(&mut self) -> io::Result<bool> {
        let mut found = BTreeMap::new();
        list(&self.root, 0, &mut found)?;
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.files.len() != before;
        for (path, metadata) in found {
            let stamp = Stamp::new(&metadata);
            let entry = self.files.entry(path.clone()).or_default();
            if entry.stamp.is_none() || entry.stamp != stamp {
                changed = true;
                entry.stamp = stamp;
                entry.read(&path, metadata.len(), &self.default_namespace);
            }
        }
        Ok(changed)
    }

    /// What all files say. Of an object that stands in several files, the first file in the order of their paths counts.
    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        let mut seen = BTreeMap::<ResourceRef, &Path>::new();
        for (path, entry) in &self.files {
            let mut findings = entry.findings.clone();
            for object in &entry.objects {
                let resource = object.resource();
                match seen.get(&resource) {
                    None => {
                        seen.insert(resource, path);
                        picture.objects.push(object.clone());
                    }
                    Some(first) => findings.push(duplicate(&resource, first, path)),
                }
            }
            if !findings.is_empty() {
                picture.findings.insert(file_resource(path), findings);
            }
        }
        picture.add_lost_slices();
        picture
    }
}

impl Picture {
    /// In files nothing is still on its way: a Service that is not here will not come by itself.
    fn add_lost_slices(&mut self) {
        let is_service = |object: &Object| matches!(object, Object::Service(_));
        let services: BTreeSet<_> =
            self.objects.iter().filter(|it| is_service(it)).map(Object::resource).collect();
        for object in &self.objects {
            let Object::EndpointSlice(slice) = object else { continue };
            let label = crate::objects::SERVICE_NAME_LABEL;
            let Some(owner) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(label)) else {
                continue;
            };
            let resource = slice.resource();
            let service = ResourceRef::new("Service", resource.namespace.clone(), owner.as_str());
            if !services.contains(&service) {
                let message = format!("no file has {service}, and so the slice has no use");
                let field = format!("metadata.labels[\"{label}\"]");
                let finding = Finding::warning(&resource, field, "UnknownService", message);
                self.findings.entry(resource).or_default().push(finding);
            }
        }
    }
}

impl Entry {
    /// Takes in the file's content. If it cannot be read, its last good objects stay.
    fn read(&mut self, path: &Path, length: u64, default_namespace: &str) {
        let resource = file_resource(path);
        let text = match text(path, length) {
            Ok(text) => text,
            Err(fault) => return self.keep(&resource, "content", fault),
        };
        match manifest::read(&text, default_namespace) {
            Ok(manifest) => {
                let is_kept = |object: &Object| manifest.malformed.contains(&object.resource());
                let kept = std::mem::take(&mut self.objects).into_iter().filter(is_kept);
                self.objects = manifest.objects.into_iter().chain(kept).collect();
                self.findings = manifest.findings;
            }
            Err(unreadable) => {
                let field = match unreadable.position {
                    Some((line, column)) => format!("line {line}, column {column}"),
                    None => "content".to_owned(),
                };
                self.keep(&resource, &field, unreadable.why);
            }
        }
    }

    fn keep(&mut self, resource: &ResourceRef, field: &str, fault: String) {
        let kept = match self.objects.len() {
            0 => "nothing of it is served".to_owned(),
            count => format!("what it said last ({count} objects) stays in force"),
        };
        let message = format!("{fault}; {kept} until the file is mended or removed");
        self.findings = vec![Finding::error(resource, field, "UnreadableFile", message)];
    }
}

impl Stamp {
    /// None if the file may change without its stamp changing.
    fn new(metadata: &Metadata) -> Option<Self> {
        let modified = metadata.modified().ok()?;
        let is_settled = SystemTime::now().duration_since(modified).is_ok_and(|age| age > TIME_RESOLUTION);
        is_settled.then(|| Self {
            identity: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The manifest files below `dir`. Hidden ones are passed over: they are an editor's, or the folders behind the links
/// of a ConfigMap, which are found by the links.
fn list(dir: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Metadata>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // A file that went away since, or a link that leads nowhere, is not there.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth < DEEPEST {
            if let Err(error) = list(&path, depth + 1, found) {
                tracing::debug!(path = %path.display(), %error, "a folder that cannot be read is passed over");
            }
        } else if metadata.is_file() && is_manifest(&path) {
            found.insert(path, metadata);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|it| {
        it.eq_ignore_ascii_case("yaml") || it.eq_ignore_ascii_case("yml") || it.eq_ignore_ascii_case("json")
    })
}

fn text(path: &Path, length: u64) -> Result<String, String> {
    let too_large = |length: u64| {
        format!(
            "the file has {length} bytes or more, and more than {LARGEST} are not read; split it or move it away"
        )
    };
    if length > LARGEST {
        return Err(too_large(length));
    }
    let mut bytes = Vec::new();
    // It may have grown since it was listed.
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("the file cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > LARGEST => Err(too_large(bytes.len() as u64)),
        Ok(_) => String::from_utf8(bytes).map_err(|error| {
            format!("the file is not text: byte {} is not UTF-8", error.utf8_error().valid_up_to())
        }),
    }
}

/// The file, in findings.
pub(super) fn file_resource(path: &Path) -> ResourceRef {
    ResourceRef::new("File", "", path.display().to_string())
}

fn duplicate(resource: &ResourceRef, first: &Path, second: &Path) -> Finding {
    let message = format!(
        "{resource} stands in {} and in {}; the first counts; remove one of them",
        first.display(),
        second.display()
    );
    Finding::error(&file_resource(second), resource.to_string(), "DuplicateObject", message)
}
