//! What all sources say, merged into one picture.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use portolan_model::{
    Cluster, ClusterId, Contribution, Finding, Listener, ListenerId, ResourceRef, Route, RouteId,
};

/// The three maps of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) listeners: OrdMap<ListenerId, Arc<Listener>>,
    pub(crate) routes: OrdMap<RouteId, Arc<Route>>,
    pub(crate) clusters: OrdMap<ClusterId, Arc<Cluster>>,
}

/// Everything said, and the picture that it makes.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    held: BTreeMap<(ResourceRef, usize), Contribution>,
    published: Picture,
}

impl Merge {
    pub(crate) fn upsert(
        &mut self,
        source: usize,
        resource: ResourceRef,
        contribution: Contribution,
    ) -> bool {
        self.held.insert((resource, source), contribution);
        true
    }

    pub(crate) fn remove(&mut self, source: usize, resource: &ResourceRef) -> bool {
        self.held.remove(&(resource.clone(), source)).is_some()
    }

    pub(crate) fn replace_all(&mut self, source: usize, all: Vec<(ResourceRef, Contribution)>) -> bool {
        self.held.retain(|(_, of), _| *of != source);
        self.held.extend(all.into_iter().map(|(resource, said)| ((resource, source), said)));
        true
    }

    /// The picture, if it differs from the one returned before.
    pub(crate) fn publish(&mut self) -> Option<Picture> {
        let mut picture = Picture::default();
        for said in self.held.values() {
            picture.listeners.extend(said.listeners.iter().map(|it| (it.id.clone(), it.clone())));
            picture.routes.extend(said.routes.iter().map(|it| (it.id.clone(), it.clone())));
            picture.clusters.extend(said.clusters.iter().map(|it| (it.id.clone(), it.clone())));
        }
        (picture != self.published).then(|| {
            self.published = picture.clone();
            picture
        })
    }

    pub(crate) fn findings_changed(&self) -> bool {
        true
    }

    /// The findings, if they differ from those returned before.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.held.values().flat_map(|said| said.findings.iter().cloned()).collect()
    }

    pub(crate) fn objects(&self) -> usize {
        self.held.len()
    }
}
