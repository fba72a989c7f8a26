//! The source `files`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use portolan_model::{Contribution, Finding, ResourceRef};
use tokio::sync::watch;
use tokio::time::Instant;

use super::folder::{Folder, Picture, Scanned, file_resource, place};
use super::manifest::Object;
use super::watcher::Watcher;
use crate::source::{Change, Sink, Source};
use crate::translate::{Index, ObjectEvent, Scope, TranslateConfig};

/// A folder of manifests, followed.
#[derive(Debug)]
pub struct FileSource {
    dir: PathBuf,
    translate: watch::Receiver<Arc<TranslateConfig>>,
}

impl FileSource {
    /// The folder `dir`. A change of the translation's configuration takes effect while the source runs, but for the
    /// default namespace, which objects without one are read into.
    pub fn new(dir: impl Into<PathBuf>, translate: watch::Receiver<Arc<TranslateConfig>>) -> Self {
        Self { dir: dir.into(), translate }
    }
}

impl Source for FileSource {
    fn name(&self) -> &'static str {
        "files"
    }

    async fn run(self, sink: Sink) -> anyhow::Result<()> {
        let Self { dir, translate } = self;
        let default_namespace = translate.borrow().default_namespace.clone();
        let mut watcher = Watcher::new(&dir);
        let mut folder = Folder::new(&dir, &default_namespace);
        let mut speaker = Speaker {
            sink,
            translate,
            index: Index::new(),
            faults: BTreeMap::new(),
            places: BTreeMap::new(),
        };

        watcher.renew();
        let observed = Instant::now();
        let scanned;
        (folder, scanned) = scan(folder).await;
        let mut look_again = scanned
            .with_context(|| format!("the folder of manifests {} cannot be read", dir.display()))?
            .look_again;
        speaker.say(folder.picture(), observed).await;
        speaker.sink.synced();
        speaker.sink.fresh(true);
        loop {
            let (observed, has_new_config) = tokio::select! {
                observed = watcher.changed(look_again) => (observed, false),
                () = config_changed(&mut speaker.translate) => (Instant::now(), true),
            };
            if has_new_config {
                speaker.say_all_again(observed).await;
            }
            watcher.renew();
            let scanned;
            (folder, scanned) = scan(folder).await;
            speaker.sink.fresh(scanned.is_ok());
            look_again = scanned.as_ref().ok().and_then(|scanned| scanned.look_again);
            match scanned {
                Ok(Scanned { has_changed: false, .. }) => speaker.mend_folder(&dir, observed).await,
                Ok(Scanned { has_changed: true, .. }) => speaker.say(folder.picture(), observed).await,
                Err(error) => speaker.blame_folder(&dir, &error, observed).await,
            }
        }
    }
}

/// Reading files blocks, and so happens on a thread for that.
async fn scan(mut folder: Folder) -> (Folder, io::Result<Scanned>) {
    let task = tokio::task::spawn_blocking(move || {
        let scanned = folder.scan();
        (folder, scanned)
    });
    task.await.expect("reading files does not panic, and the runtime outlives the source")
}

async fn config_changed(translate: &mut watch::Receiver<Arc<TranslateConfig>>) {
    if translate.changed().await.is_err() {
        // Nobody can change it any more.
        std::future::pending::<()>().await;
    }
}

/// Turns pictures of the folder into what the store hears.
struct Speaker {
    sink: Sink,
    translate: watch::Receiver<Arc<TranslateConfig>>,
    index: Index,
    /// What was said of files, and of slices among files.
    faults: BTreeMap<ResourceRef, Vec<Finding>>,
    /// The file that each object stands in.
    places: BTreeMap<ResourceRef, PathBuf>,
}

impl Speaker {
    /// Says what differs from what was said before.
    async fn say(&mut self, picture: Picture, observed: Instant) {
        let mut touched = Vec::new();
        for event in events(picture.objects) {
            touched.extend(self.index.apply(event));
        }
        let differs = |key: &&ResourceRef| self.faults.get(*key) != picture.findings.get(*key);
        touched.extend(self.faults.keys().chain(picture.findings.keys()).filter(differs).cloned());
        // The findings of an object name its file.
        let has_moved = |key: &&ResourceRef| self.places.get(*key) != picture.places.get(*key);
        touched.extend(picture.places.keys().filter(has_moved).cloned());
        self.faults = picture.findings;
        self.places = picture.places;
        self.apply(touched, observed).await;
    }

    async fn say_all_again(&self, observed: Instant) {
        self.apply(self.index.keys(), observed).await;
    }

    async fn apply(&self, mut touched: Vec<ResourceRef>, observed: Instant) {
        touched.sort();
        touched.dedup();
        let config = Arc::clone(&self.translate.borrow());
        let changes = touched.into_iter().map(|key| match self.contribution(&key, &config) {
            Some(contribution) => Change::Upsert(key, contribution),
            None => Change::Remove(key),
        });
        self.sink.apply(changes.collect(), observed).await;
    }

    fn contribution(&self, key: &ResourceRef, config: &TranslateConfig) -> Option<Contribution> {
        let mut translated = self.index.contribution(key, config);
        for finding in translated.iter_mut().flat_map(|said| &mut said.findings) {
            if let Some(path) = self.places.get(&finding.resource) {
                place(finding, path);
            }
        }
        match self.faults.get(key) {
            None => translated,
            Some(faults) => {
                let mut contribution = translated.unwrap_or_default();
                contribution.findings.extend(faults.iter().cloned());
                Some(contribution)
            }
        }
    }

    async fn blame_folder(&mut self, dir: &Path, error: &io::Error, observed: Instant) {
        let message = format!("the folder cannot be read: {error}; what it said last stays in force");
        let resource = file_resource(dir);
        let findings = vec![Finding::error(&resource, "content", "UnreadableFile", message)];
        if self.faults.get(&resource) != Some(&findings) {
            self.faults.insert(resource.clone(), findings);
            self.apply(vec![resource], observed).await;
        }
    }

    async fn mend_folder(&mut self, dir: &Path, observed: Instant) {
        let resource = file_resource(dir);
        if self.faults.remove(&resource).is_some() {
            self.apply(vec![resource], observed).await;
        }
    }
}

fn events(objects: Vec<Object>) -> [ObjectEvent; 3] {
    let (mut services, mut slices, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        match object {
            Object::Service(object) => services.push(object),
            Object::EndpointSlice(object) => slices.push(object),
            Object::Namespace(object) => namespaces.push(object),
        }
    }
    [
        ObjectEvent::AllNamespaces(namespaces),
        ObjectEvent::AllServices(Scope::All, services),
        ObjectEvent::AllEndpointSlices(Scope::All, slices),
    ]
}
