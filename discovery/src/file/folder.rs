//! The manifest files of a folder, and what each said last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portolan_model::{Finding, ResourceRef};
use tokio::time::Instant;

use super::listing::{Listing, identity};
use super::manifest::{self, Manifest, Object};

/// A manifest larger than this is not read: somebody put something else there.
const LARGEST: u64 = 4 * 1024 * 1024;
/// A file that was written so shortly before it was read may have been written again within the resolution of its time.
const TIME_RESOLUTION: Duration = Duration::from_millis(100);
/// A file that lost objects may be half written until it has stayed as it is for this long.
const STABLE: Duration = Duration::from_secs(2);

/// The files below a folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    default_namespace: Arc<str>,
    files: BTreeMap<PathBuf, Entry>,
    /// What could not be looked into, and why.
    unreadable: BTreeMap<PathBuf, String>,
    hasher: RandomState,
}

/// What a look at the files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Whether a file may say something else than before.
    pub(super) has_changed: bool,
    /// When to look again though nothing changes: a file that may be half written is taken as it is then.
    pub(super) look_again: Option<Duration>,
}

/// A file as it was read last.
#[derive(Debug, Default)]
struct Entry {
    stamp: Option<Stamp>,
    /// What its last good state said.
    objects: Vec<Object>,
    /// The device and inode of its last good state.
    good: Option<(u64, u64)>,
    /// A hash of the text that was taken in last and counts; none if it was none that could be.
    taken: Option<u64>,
    findings: Vec<Finding>,
    /// Since when it is as it is, if it lost objects by that.
    lost: Option<(Stamp, Instant)>,
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
    /// The file that each object stands in.
    pub(super) places: BTreeMap<ResourceRef, PathBuf>,
}

impl Folder {
    pub(super) fn new(root: &Path, default_namespace: &str) -> Self {
        Self {
            root: root.to_owned(),
            default_namespace: default_namespace.into(),
            files: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Reads the files that are new or changed, and forgets those that are gone. Files in a folder that cannot be read
    /// are not gone.
    ///
    /// # Errors
    /// If the folder itself cannot be read; then everything stays as it was.
    pub(super) fn scan(&mut self) -> io::Result<Scanned> {
        let Listing { files, unreadable } = Listing::read(&self.root)?;
        let before = self.files.len();
        let is_hidden = |path: &Path| path.ancestors().any(|it| unreadable.contains_key(it));
        self.files.retain(|path, _| files.contains_key(path) || is_hidden(path));
        let mut has_changed = self.files.len() != before || self.unreadable != unreadable;
        self.unreadable = unreadable;
        for (path, metadata) in files {
            let entry = self.files.entry(path.clone()).or_default();
            let stamp = Stamp::new(&metadata);
            if !entry.is_as(stamp.as_ref()) {
                has_changed |= entry.read(&path, &metadata, stamp, &self.default_namespace, &self.hasher);
            }
        }
        let look_again = self.files.values().filter_map(Entry::settles_in).min();
        Ok(Scanned { has_changed, look_again })
    }

    /// What all files say. Of an object that stands in several files, the first file in the order of their paths counts.
    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        for (path, entry) in &self.files {
            let mut findings = entry.findings.clone();
            for object in &entry.objects {
                let resource = object.resource();
                match picture.places.get(&resource) {
                    None => {
                        picture.places.insert(resource, path.clone());
                        picture.objects.push(object.clone());
                    }
                    Some(first) => findings.push(duplicate(&resource, first, path)),
                }
            }
            if !findings.is_empty() {
                picture.findings.insert(file_resource(path), findings);
            }
        }
        for (path, fault) in &self.unreadable {
            let resource = file_resource(path);
            let finding = Finding::error(&resource, "content", "UnreadableFile", self.hidden(path, fault));
            picture.findings.entry(resource).or_default().push(finding);
        }
        picture.add_lost_slices();
        picture
    }

    fn hidden(&self, path: &Path, fault: &str) -> String {
        match self.files.keys().filter(|file| file.starts_with(path)).count() {
            0 => format!("{fault}; nothing in it is served until that is mended"),
            count => {
                format!("{fault}; what {count} files said last stays in force until it is mended or removed")
            }
        }
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
                let mut finding = Finding::warning(&resource, field, "UnknownService", message);
                if let Some(path) = self.places.get(&resource) {
                    place(&mut finding, path);
                }
                self.findings.entry(resource).or_default().push(finding);
            }
        }
    }
}

impl Entry {
    /// Whether there is nothing new to read.
    fn is_as(&self, stamp: Option<&Stamp>) -> bool {
        self.lost.is_none() && self.stamp.is_some() && self.stamp.as_ref() == stamp
    }

    /// Takes in the file's content. If it cannot be read or may be half written, its last good objects stay. Tells
    /// whether it may say something else now: a file that was touched is read again and says the same, as does one that
    /// was read so soon after it was written that nobody could tell whether it was whole.
    fn read(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        stamp: Option<Stamp>,
        default_namespace: &str,
        hasher: &RandomState,
    ) -> bool {
        self.stamp = stamp;
        let text = text(path, metadata.len());
        let hash = text.as_ref().ok().map(|text| hasher.hash_one(text));
        if hash.is_some() && self.taken == hash && self.lost.is_none() {
            self.good = Some(identity(metadata));
            return false;
        }
        let is_taken = match text {
            Ok(text) => self.understand(path, metadata, &text, default_namespace),
            Err(fault) => self.keep(path, "content", fault),
        };
        self.taken = hash.filter(|_| is_taken);
        true
    }

    /// Tells whether what the text says counts from now on.
    fn understand(&mut self, path: &Path, metadata: &Metadata, text: &str, default_namespace: &str) -> bool {
        match manifest::read(text, default_namespace) {
            Ok(manifest) => self.take(path, metadata, manifest),
            Err(unreadable) => {
                let field = match unreadable.position {
                    Some((line, column)) => format!("line {line}, column {column}"),
                    None => "content".to_owned(),
                };
                self.keep(path, &field, unreadable.why)
            }
        }
    }

    fn take(&mut self, path: &Path, metadata: &Metadata, manifest: Manifest) -> bool {
        let said: BTreeSet<_> =
            manifest.objects.iter().map(Object::resource).chain(manifest.malformed.iter().cloned()).collect();
        let lost = self.objects.iter().map(Object::resource).filter(|it| !said.contains(it));
        let lost: Vec<_> = lost.map(|it| it.to_string()).collect();
        // One that was renamed over another is whole, but a new one may still be empty.
        let is_whole = self.good != Some(identity(metadata)) && !said.is_empty();
        if !lost.is_empty() && !is_whole && self.may_be_half_written(metadata) {
            self.findings = vec![half_written(path, &lost)];
            return false;
        }
        self.lost = None;
        self.good = Some(identity(metadata));
        let is_kept = |object: &Object| manifest.malformed.contains(&object.resource());
        let kept = std::mem::take(&mut self.objects).into_iter().filter(is_kept);
        self.objects = manifest.objects.into_iter().chain(kept).collect();
        self.findings = manifest.findings;
        self.findings.iter_mut().for_each(|finding| place(finding, path));
        true
    }

    /// Whether a file that lost objects was written so shortly ago that the rest may still come. The time of the file
    /// tells, and if that is of no use (a clock that differs), how long it has been seen like this.
    fn may_be_half_written(&mut self, metadata: &Metadata) -> bool {
        let stamp = Stamp::raw(metadata);
        let age = stamp.as_ref().and_then(|it| SystemTime::now().duration_since(it.modified).ok());
        if age.is_some_and(|age| age >= STABLE) {
            return false;
        }
        self.lost = match (self.lost.take(), stamp) {
            (Some((before, since)), Some(stamp)) if before == stamp => Some((before, since)),
            (_, stamp) => stamp.map(|stamp| (stamp, Instant::now())),
        };
        self.lost.as_ref().is_some_and(|(_, since)| since.elapsed() < STABLE)
    }

    fn settles_in(&self) -> Option<Duration> {
        self.lost.as_ref().map(|(_, since)| STABLE.saturating_sub(since.elapsed()))
    }

    fn keep(&mut self, path: &Path, field: &str, fault: String) -> bool {
        self.lost = None;
        let kept = match self.objects.len() {
            0 => "nothing of it is served".to_owned(),
            count => format!("what it said last ({count} objects) stays in force"),
        };
        let message = format!("{fault}; {kept} until the file is mended or removed");
        self.findings = vec![Finding::error(&file_resource(path), field, "UnreadableFile", message)];
        false
    }
}

impl Stamp {
    /// None if the file may change without its stamp changing.
    fn new(metadata: &Metadata) -> Option<Self> {
        let stamp = Self::raw(metadata)?;
        let age = SystemTime::now().duration_since(stamp.modified);
        age.is_ok_and(|age| age > TIME_RESOLUTION).then_some(stamp)
    }

    fn raw(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            identity: identity(metadata),
            length: metadata.len(),
            modified: metadata.modified().ok()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
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

/// Says in the finding which file its object stands in.
pub(super) fn place(finding: &mut Finding, path: &Path) {
    finding.message = format!("{}; it stands in {}", finding.message, path.display());
}

fn half_written(path: &Path, lost: &[String]) -> Finding {
    let message = format!(
        "the file was changed just now and does not have {} any more, as if it were half written; what it said last \
         stays in force until it has stayed as it is for {} s",
        lost.join(", "),
        STABLE.as_secs()
    );
    Finding::warning(&file_resource(path), "content", "HalfWrittenFile", message)
}

fn duplicate(resource: &ResourceRef, first: &Path, second: &Path) -> Finding {
    let message = format!(
        "{resource} stands in {} and in {}; the first counts; remove one of them",
        first.display(),
        second.display()
    );
    Finding::error(&file_resource(second), resource.to_string(), "DuplicateObject", message)
}
