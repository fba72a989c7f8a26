//! A source's own small state: what the translation of one Service needs of the other objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_model::{Contribution, Finding, ResourceRef};

use super::held::{HeldService, HeldSlice};
use super::text::shortened;
use super::{TranslateConfig, endpoint_slices, service};
use crate::objects::{EndpointSlice, Namespace, PREFIX, SERVICE_NAME_LABEL, Service};

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
pub struct Index {
    services: BTreeMap<Name, HeldService>,
    /// By the Service that they name, which need not exist, then by their own name.
    slices: BTreeMap<Name, BTreeMap<Arc<str>, HeldSlice>>,
    /// Which Service each slice names; none for those without the label.
    slice_owners: BTreeMap<Name, Option<Arc<str>>>,
    /// The text of the label `portolan.dev/expose` of the Namespaces that have it.
    namespaces: BTreeMap<Arc<str>, Box<str>>,
}

/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

impl Index {
    /// An index that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one change and names the objects whose contribution may be another now: ask
    /// [`contribution`](Self::contribution) for each. A full list is compared with what is held, so that only what
    /// differs is named.
    pub fn apply(&mut self, event: ObjectEvent) -> Vec<ResourceRef> {
        let mut touched = BTreeSet::new();
        match event {
            ObjectEvent::Service(service) => self.put_service(service, &mut touched),
            ObjectEvent::EndpointSlice(slice) => self.put_slice(slice, &mut touched),
            ObjectEvent::Namespace(namespace) => self.put_namespace(&namespace, &mut touched),
            ObjectEvent::Gone(resource) => self.remove(&resource, &mut touched),
            ObjectEvent::AllServices(scope, all) => self.replace_services(&scope, all, &mut touched),
            ObjectEvent::AllEndpointSlices(scope, all) => self.replace_slices(&scope, all, &mut touched),
            ObjectEvent::AllNamespaces(all) => self.replace_namespaces(&all, &mut touched),
        }
        touched.into_iter().collect()
    }

    /// What the object contributes; nothing if it is gone, or has neither routes nor faults.
    pub fn contribution(&self, key: &ResourceRef, config: &TranslateConfig) -> Option<Contribution> {
        match &*key.kind {
            "Service" => {
                let name = name_of(key);
                let service = self.services.get(&name)?;
                let slices = self.slices.get(&name).into_iter().flat_map(BTreeMap::values);
                service::translate(service, slices, self.exposes(&key.namespace), config)
            }
            "EndpointSlice" => {
                let owner = self.slice_owners.get(&name_of(key))?;
                owner.is_none().then(|| only(endpoint_slices::without_service(key)))
            }
            "Namespace" => {
                let label = self.namespaces.get(&key.name)?;
                let is_understood = matches!(&**label, "true" | "false");
                (!is_understood).then(|| only(unknown_label(key, label)))
            }
            _ => None,
        }
    }

    /// Every object that may contribute something.
    pub fn keys(&self) -> Vec<ResourceRef> {
        let orphans = self.slice_owners.iter().filter(|(_, owner)| owner.is_none());
        let services = self.services.values().map(|service| service.resource.clone());
        let orphans = orphans
            .map(|((namespace, name), _)| ResourceRef::new("EndpointSlice", namespace.clone(), name.clone()));
        services.chain(orphans).chain(self.namespaces.keys().map(namespace_key)).collect()
    }

    fn exposes(&self, namespace: &Arc<str>) -> Option<bool> {
        // A label that is not understood exposes nothing; it is a finding on the Namespace.
        self.namespaces.get(namespace).and_then(|label| label.parse().ok())
    }

    fn put_service(&mut self, service: Service, touched: &mut BTreeSet<ResourceRef>) {
        let held = HeldService::new(service);
        let name = name_of(&held.resource);
        if self.services.get(&name) != Some(&held) {
            touched.insert(held.resource.clone());
            self.services.insert(name, held);
        }
    }

    fn put_slice(&mut self, slice: EndpointSlice, touched: &mut BTreeSet<ResourceRef>) {
        let labels = slice.metadata.labels.as_ref();
        let owner =
            labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).filter(|owner| !owner.is_empty());
        let owner: Option<Arc<str>> = owner.map(|owner| owner.as_str().into());
        let resource = slice.resource();
        let name = name_of(&resource);
        let before = self.slice_owners.get(&name);
        if before.is_some_and(|before| *before != owner) {
            // The label names another Service now: gone from the one, new to the other.
            self.remove_slice(&name, touched);
        }
        let Some(owner) = owner else {
            self.slice_owners.insert(name, None);
            touched.insert(resource);
            return;
        };
        let service = (name.0.clone(), owner.clone());
        let siblings = self.slices.entry(service.clone()).or_default();
        let before = siblings.get(&name.1);
        let held = HeldSlice::new(slice, before);
        if before != Some(&held) {
            siblings.insert(name.1.clone(), held);
            touched.insert(service_key(&service));
        }
        self.slice_owners.insert(name, Some(owner));
    }

    fn put_namespace(&mut self, namespace: &Namespace, touched: &mut BTreeSet<ResourceRef>) {
        let name: Arc<str> = namespace.metadata.name.as_deref().unwrap_or_default().into();
        let labels = namespace.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get(&format!("{PREFIX}expose")));
        let before = match label {
            Some(label) => self.namespaces.insert(name.clone(), label.as_str().into()),
            None => self.namespaces.remove(&name),
        };
        if before.as_deref() != label.map(String::as_str) {
            self.touch_namespace(&name, touched);
        }
    }

    fn touch_namespace(&self, name: &Arc<str>, touched: &mut BTreeSet<ResourceRef>) {
        let first = (name.clone(), Arc::from(""));
        let services = self.services.range(first..).take_while(|((namespace, _), _)| namespace == name);
        touched.extend(services.map(|(_, service)| service.resource.clone()));
        touched.insert(namespace_key(name));
    }

    fn remove(&mut self, resource: &ResourceRef, touched: &mut BTreeSet<ResourceRef>) {
        let name = name_of(resource);
        match &*resource.kind {
            "Service" => touched.extend(self.services.remove(&name).map(|service| service.resource)),
            "EndpointSlice" => self.remove_slice(&name, touched),
            "Namespace" if self.namespaces.remove(&resource.name).is_some() => {
                self.touch_namespace(&resource.name, touched);
            }
            _ => {}
        }
    }

    fn remove_slice(&mut self, name: &Name, touched: &mut BTreeSet<ResourceRef>) {
        match self.slice_owners.remove(name) {
            None => {}
            Some(None) => {
                touched.insert(ResourceRef::new("EndpointSlice", name.0.clone(), name.1.clone()));
            }
            Some(Some(owner)) => {
                let service = (name.0.clone(), owner);
                if let Some(siblings) = self.slices.get_mut(&service) {
                    siblings.remove(&name.1);
                    if siblings.is_empty() {
                        self.slices.remove(&service);
                    }
                }
                touched.insert(service_key(&service));
            }
        }
    }

    fn replace_services(&mut self, scope: &Scope, all: Vec<Service>, touched: &mut BTreeSet<ResourceRef>) {
        let listed: BTreeSet<Name> = all.iter().map(|service| name_of(&service.resource())).collect();
        let gone = self.services.keys().filter(|name| scope.covers(&name.0) && !listed.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.services.remove(&name);
            touched.insert(service_key(&name));
        }
        for service in all {
            self.put_service(service, touched);
        }
    }

    fn replace_slices(
        &mut self,
        scope: &Scope,
        all: Vec<EndpointSlice>,
        touched: &mut BTreeSet<ResourceRef>,
    ) {
        let listed: BTreeSet<Name> = all.iter().map(|slice| name_of(&slice.resource())).collect();
        let gone = self.slice_owners.keys().filter(|name| scope.covers(&name.0) && !listed.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove_slice(&name, touched);
        }
        for slice in all {
            self.put_slice(slice, touched);
        }
    }

    fn replace_namespaces(&mut self, all: &[Namespace], touched: &mut BTreeSet<ResourceRef>) {
        let listed: BTreeSet<&str> = all.iter().filter_map(|it| it.metadata.name.as_deref()).collect();
        let gone = self.namespaces.keys().filter(|name| !listed.contains(&***name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.namespaces.remove(&name);
            self.touch_namespace(&name, touched);
        }
        for namespace in all {
            self.put_namespace(namespace, touched);
        }
    }
}

impl Scope {
    fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(name) => name == namespace,
        }
    }
}

fn name_of(resource: &ResourceRef) -> Name {
    (resource.namespace.clone(), resource.name.clone())
}

fn service_key((namespace, name): &Name) -> ResourceRef {
    ResourceRef::new("Service", namespace.clone(), name.clone())
}

fn namespace_key(name: &Arc<str>) -> ResourceRef {
    ResourceRef::new("Namespace", "", name.clone())
}

fn only(finding: Finding) -> Contribution {
    Contribution { findings: vec![finding], ..Contribution::default() }
}

fn unknown_label(resource: &ResourceRef, label: &str) -> Finding {
    let message = format!(
        "{:?} is neither true nor false, and so exposes no Service of the namespace",
        shortened(label)
    );
    Finding::error(resource, format!("metadata.labels[\"{PREFIX}expose\"]"), "InvalidLabel", message)
}
