//! A source's own small state: what the translation of one Service needs of the other objects.

use portolan_model::{Contribution, ResourceRef};

use super::TranslateConfig;
use crate::objects::{EndpointSlice, Namespace, Service};

/// One change to the objects that a source has seen.
#[derive(Debug, Clone)]
pub enum ObjectEvent {
    /// A Service was written.
    Service(Service),
    /// An EndpointSlice was written.
    EndpointSlice(EndpointSlice),
    /// A Namespace was written.
    Namespace(Namespace),
    /// The object of this kind (`Service`, `EndpointSlice`, `Namespace`), namespace and name is gone.
    Gone(ResourceRef),
    /// These are all the Services in this scope.
    AllServices(Scope, Vec<Service>),
    /// These are all the EndpointSlices in this scope.
    AllEndpointSlices(Scope, Vec<EndpointSlice>),
    /// These are all the Namespaces.
    AllNamespaces(Vec<Namespace>),
}

/// What a full list covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace.
    All,
    /// This one.
    Namespace(String),
}

/// The objects that a source has seen, joined: Services by name, EndpointSlices by the Service that they name,
/// the labels of Namespaces. Only what translation reads is kept.
#[derive(Debug, Default)]
pub struct Index {}

impl Index {
    /// An index that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one change and names the objects whose contribution may be another now: ask
    /// [`contribution`](Self::contribution) for each. A full list is compared with what is held, so that only what
    /// differs is named.
    pub fn apply(&mut self, event: ObjectEvent) -> Vec<ResourceRef> {
        tracing::debug!(?event, "not translated yet");
        Vec::new()
    }

    /// What the object contributes; nothing if it is gone, or has neither routes nor faults.
    pub fn contribution(&self, key: &ResourceRef, config: &TranslateConfig) -> Option<Contribution> {
        tracing::debug!(%key, zone = ?config.zone, "not translated yet");
        None
    }

    /// Every object that may contribute something.
    pub fn keys(&self) -> Vec<ResourceRef> {
        Vec::new()
    }
}
