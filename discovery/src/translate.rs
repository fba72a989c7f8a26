//! From Kubernetes objects to the neutral model: pure functions, used by the Kubernetes source and the files source
//! alike.

mod annotations;
mod endpoint_slices;
mod held;
mod index;
mod service;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use portolan_model::ClusterPolicy;

pub use annotations::{Annotation, SERVICE_ANNOTATIONS};
pub use index::{Index, ObjectEvent, Scope};

/// What translation depends on beside the objects.
#[derive(Debug, Clone)]
pub struct TranslateConfig {
    /// Which Services become routes.
    pub expose: Expose,
    /// The namespace whose Services are `/NAME/**` and the bare authority `NAME`; those of others carry their
    /// namespace.
    pub default_namespace: Arc<str>,
    /// The DNS domain of the Kubernetes cluster: `cluster.local`.
    pub cluster_domain: Arc<str>,
    /// The zone that the gateway runs in, for zone hints.
    pub zone: Option<Arc<str>>,
    /// The node that the gateway runs on, for node hints.
    pub node: Option<Arc<str>>,
    /// Whether zone and node hints are honoured.
    pub zone_hints: bool,
    /// Whether endpoints may have loopback addresses. Only for the files source: in a Kubernetes cluster such an
    /// address would be the gateway's own.
    pub allow_local_addresses: bool,
    /// Whether something writes the EndpointSlices of Services that have a selector, as the controllers of Kubernetes
    /// do. Without, a Service that has no EndpointSlice is a finding at once.
    pub slices_are_made: bool,
    /// What holds for a Service that asks for nothing else.
    pub policy: Arc<ClusterPolicy>,
}

impl TranslateConfig {
    /// The defaults for objects from an API server.
    pub fn kubernetes(default_namespace: impl Into<Arc<str>>) -> Self {
        Self {
            expose: Expose::Annotated,
            default_namespace: default_namespace.into(),
            cluster_domain: "cluster.local".into(),
            zone: None,
            node: None,
            zone_hints: true,
            allow_local_addresses: false,
            slices_are_made: true,
            policy: Arc::default(),
        }
    }

    /// The defaults for objects from manifest files: loopback endpoints are allowed, and nobody makes EndpointSlices.
    pub fn files(default_namespace: impl Into<Arc<str>>) -> Self {
        Self { allow_local_addresses: true, slices_are_made: false, ..Self::kubernetes(default_namespace) }
    }
}

/// Which Services become routes. The annotation `portolan.dev/expose: "false"` always hides one, and Portolan's own
/// never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expose {
    /// Those with the annotation `portolan.dev/expose: "true"`, or in a namespace with that label.
    #[default]
    Annotated,
    /// All but `default/kubernetes` and those of `kube-system`.
    All,
}
