//! The compact forms in which an index holds objects: a tenth of what they take on the wire.

use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::ResourceRef;

use crate::objects::{
    APP_NAME_LABEL, Conditions, EndpointSlice, Hints, PREFIX, Service, ServicePort, ServiceSpec,
    SliceEndpoint, SlicePort,
};

/// A Service as the index holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldService {
    pub(super) resource: ResourceRef,
    /// In seconds since the epoch; 0 where it is not known, as in manifest files.
    pub(super) created: i64,
    /// Whether it is Portolan's own.
    pub(super) is_own: bool,
    pub(super) annotations: OwnAnnotations,
    pub(super) type_: Option<Box<str>>,
    pub(super) ports: Box<[ServicePort]>,
    pub(super) has_selector: bool,
    pub(super) client_ip_affinity: bool,
    pub(super) prefers_ipv6: bool,
}

/// The `portolan.dev/…` annotations of an object, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnAnnotations(Box<[(Box<str>, Box<str>)]>);

/// An EndpointSlice as the index holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldSlice {
    pub(super) resource: ResourceRef,
    pub(super) annotations: OwnAnnotations,
    pub(super) address_type: Box<str>,
    pub(super) ports: Box<[SlicePort]>,
    pub(super) endpoints: Box<[HeldEndpoint]>,
}

/// An endpoint as the index holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldEndpoint {
    pub(super) address: HeldAddress,
    pub(super) uid: Option<Arc<str>>,
    pub(super) conditions: Conditions,
    /// Shared by neighbours that have the same.
    pub(super) hints: Option<Arc<Hints>>,
}

/// The address of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HeldAddress {
    Ip(IpAddr),
    /// A text that is no IP address.
    Text(Box<str>),
    Missing,
}

impl HeldService {
    pub(super) fn new(service: Service) -> Self {
        let resource = service.resource();
        let metadata = service.metadata;
        let ServiceSpec { type_, ports, has_selector, session_affinity, ip_families } = service.spec;
        Self {
            resource,
            created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            is_own: metadata
                .labels
                .is_some_and(|labels| labels.get(APP_NAME_LABEL).is_some_and(|it| it == "portolan")),
            annotations: OwnAnnotations::new(metadata.annotations),
            type_,
            ports: ports.into(),
            has_selector,
            client_ip_affinity: session_affinity.as_deref() == Some("ClientIP"),
            prefers_ipv6: ip_families.first().is_some_and(|family| &**family == "IPv6"),
        }
    }
}

impl OwnAnnotations {
    fn new(annotations: Option<std::collections::BTreeMap<String, String>>) -> Self {
        let own = annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(PREFIX));
        Self(own.map(|(key, value)| (key.into(), value.into())).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl HeldSlice {
    /// The compact form. Texts that `before`, the slice's last state, holds already are shared with it, because the
    /// published endpoints share them too.
    pub(super) fn new(slice: EndpointSlice, before: Option<&Self>) -> Self {
        let resource = slice.resource();
        let mut endpoints = Vec::<HeldEndpoint>::with_capacity(slice.endpoints.len());
        for (position, endpoint) in slice.endpoints.into_iter().enumerate() {
            let known_uids = before.map_or(&[][..], |before| &before.endpoints);
            let held = HeldEndpoint::new(endpoint, &endpoints, known_uids, position);
            endpoints.push(held);
        }
        Self {
            resource,
            annotations: OwnAnnotations::new(slice.metadata.annotations),
            address_type: slice.address_type,
            ports: slice.ports.into(),
            endpoints: endpoints.into(),
        }
    }
}

impl HeldEndpoint {
    fn new(endpoint: SliceEndpoint, siblings: &[Self], known: &[Self], position: usize) -> Self {
        let SliceEndpoint { addresses, conditions, target_ref, hints } = endpoint;
        let address = match addresses.into_iter().next() {
            None => HeldAddress::Missing,
            Some(text) => text.parse().map_or(HeldAddress::Text(text), HeldAddress::Ip),
        };
        let uid = target_ref.uid.map(|uid| shared_uid(&uid, known, position));
        let hints = (hints != Hints::default()).then(|| {
            let mut near = siblings.iter().rev().take(8).filter_map(|sibling| sibling.hints.as_ref());
            near.find(|it| ***it == hints).cloned().unwrap_or_else(|| Arc::new(hints))
        });
        Self { address, uid, conditions, hints }
    }
}

/// Most updates leave an endpoint where it was, or move those behind one that left by one place.
fn shared_uid(uid: &str, known: &[HeldEndpoint], position: usize) -> Arc<str> {
    let near = position.saturating_sub(1)..(position + 2).min(known.len());
    let candidates = known.get(near).unwrap_or_default().iter().filter_map(|it| it.uid.as_ref());
    candidates.into_iter().find(|it| ***it == *uid).cloned().unwrap_or_else(|| uid.into())
}
