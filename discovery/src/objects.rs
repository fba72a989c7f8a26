//! The Kubernetes objects that are read, with only the fields that are read.
//!
//! The full types of `k8s-openapi` would hold ten times the memory and refuse objects that we can serve. These drop
//! unknown fields, keep unknown enum values as text, and read a missing field or a `null` as empty; what a value means
//! is judged in [`translate`](crate::translate), which can say so in a finding. Each implements [`kube::Resource`], so
//! that `kube::Api<Service>` works.

mod wire;

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_model::ResourceRef;
use serde::Deserialize;

/// The prefix of every annotation and label that Portolan reads as its own.
pub const PREFIX: &str = "portolan.dev/";
/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label by which Portolan's own objects are known.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";

/// A Service: a name for a set of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name, namespace, creation time, resource version, and the annotations and labels that Portolan reads.
    #[serde(deserialize_with = "wire::metadata")]
    pub metadata: ObjectMeta,
    /// What it asks for.
    #[serde(deserialize_with = "wire::nullable")]
    pub spec: ServiceSpec,
}

/// What a Service asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`, or something newer.
    #[serde(rename = "type")]
    pub type_: Option<Box<str>>,
    /// Its ports, in the order written.
    #[serde(deserialize_with = "wire::nullable")]
    pub ports: Vec<ServicePort>,
    /// Whether it says which pods are meant; without, somebody writes the EndpointSlices by hand.
    #[serde(rename = "selector", deserialize_with = "wire::is_filled_map")]
    pub has_selector: bool,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<Box<str>>,
    /// The address families, the preferred one first: `IPv4`, `IPv6`.
    #[serde(deserialize_with = "wire::nullable")]
    pub ip_families: Vec<Box<str>>,
}

/// One port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; absent or empty for the only port of a Service.
    pub name: Option<Box<str>>,
    /// `TCP`, `UDP`, `SCTP`; absent means TCP.
    pub protocol: Option<Box<str>>,
    /// What is spoken there: `http`, `kubernetes.io/h2c`, …
    pub app_protocol: Option<Box<str>>,
    /// The number that callers use.
    pub port: i64,
}

/// A part of the endpoints of one Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name, namespace, creation time, resource version, and the annotations and labels that Portolan reads.
    #[serde(deserialize_with = "wire::metadata")]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6`, `FQDN`.
    pub address_type: Box<str>,
    /// The endpoints.
    #[serde(deserialize_with = "wire::nullable")]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports that each of the endpoints serves.
    #[serde(deserialize_with = "wire::nullable")]
    pub ports: Vec<SlicePort>,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Only the first has a meaning.
    #[serde(deserialize_with = "wire::nullable")]
    pub addresses: Vec<Box<str>>,
    /// Whether it should get requests.
    #[serde(deserialize_with = "wire::nullable")]
    pub conditions: Conditions,
    /// The pod behind it, where there is one.
    #[serde(deserialize_with = "wire::nullable")]
    pub target_ref: TargetRef,
    /// For whom it is the near one.
    #[serde(deserialize_with = "wire::nullable")]
    pub hints: Hints,
}

/// The conditions of an endpoint. Each may be absent, which has a meaning of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// It should get requests; absent means yes.
    pub ready: Option<bool>,
    /// It answers, whether or not it is on its way out; absent means as `ready`.
    pub serving: Option<bool>,
    /// It is on its way out; absent means no.
    pub terminating: Option<bool>,
}

/// What stands behind an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// The identity of the pod: another pod at the same address is another endpoint.
    pub uid: Option<Box<str>>,
}

/// For whom an endpoint is the near one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hints {
    /// The zones that should use it.
    #[serde(deserialize_with = "wire::nullable")]
    pub for_zones: Vec<Named>,
    /// The nodes that should use it.
    #[serde(deserialize_with = "wire::nullable")]
    pub for_nodes: Vec<Named>,
}

/// A zone or a node, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: Box<str>,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// The name of the Service's port that it serves; absent or empty for the only port of a Service.
    pub name: Option<Box<str>>,
    /// `TCP`, `UDP`, `SCTP`; absent means TCP.
    pub protocol: Option<Box<str>>,
    /// The number at the endpoints; absent means that there is no usable one.
    pub port: Option<i64>,
}

/// A namespace, for its labels.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Name, resource version and the labels that Portolan reads.
    #[serde(deserialize_with = "wire::metadata")]
    pub metadata: ObjectMeta,
}

macro_rules! resource {
    ($type:ident, $group:literal, $version:literal, $plural:literal, $scope:ty) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($type).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl $type {
            /// Who it is, in findings; absent parts of its name are empty.
            pub fn resource(&self) -> ResourceRef {
                ResourceRef::new(
                    stringify!($type),
                    self.metadata.namespace.as_deref().unwrap_or_default(),
                    self.metadata.name.as_deref().unwrap_or_default(),
                )
            }
        }
    };
}

resource!(Service, "", "v1", "services", NamespaceResourceScope);
resource!(EndpointSlice, "discovery.k8s.io", "v1", "endpointslices", NamespaceResourceScope);
resource!(Namespace, "", "v1", "namespaces", k8s_openapi::ClusterResourceScope);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_is_kept() {
        let service: Service = serde_json::from_str(
            r#"{
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": "orders", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                    "creationTimestamp": "2024-05-01T10:00:00Z",
                    "labels": {"app.kubernetes.io/name": "orders", "team": "a"},
                    "annotations": {"portolan.dev/expose": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}],
                    "ownerReferences": [{"name": "x"}]
                },
                "spec": {"type": "ClusterMagic", "selector": null, "ports": [{"port": 80, "targetPort": "web"}], "x": {}},
                "status": {"loadBalancer": {}}
            }"#,
        )
        .unwrap();
        assert_eq!(service.resource().to_string(), "Service shop/orders");
        assert_eq!(service.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(service.metadata.creation_timestamp.as_ref().unwrap().0.as_second(), 1_714_557_600);
        assert_eq!(service.metadata.labels.as_ref().unwrap().len(), 1);
        assert_eq!(service.metadata.annotations.as_ref().unwrap().len(), 1);
        assert!(service.metadata.managed_fields.is_none());
        assert_eq!(service.spec.type_.as_deref(), Some("ClusterMagic"), "an unknown enum value stays text");
        assert_eq!(service.spec.ports[0].port, 80);
    }

    #[test]
    fn a_missing_field_and_a_null_read_as_empty() {
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"metadata": {"name": "s", "creationTimestamp": "yesterday"}, "addressType": "IPv4", "endpoints": null,
                "ports": null}"#,
        )
        .unwrap();
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
        assert_eq!(slice.metadata.creation_timestamp, None, "a time that is none is dropped");
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"endpoints": [{"addresses": null, "conditions": {"ready": null}, "targetRef": null, "hints": null}]}"#,
        )
        .unwrap();
        assert_eq!(slice.endpoints, vec![SliceEndpoint::default()]);
        assert_eq!(serde_json::from_str::<Namespace>("{}").unwrap(), Namespace::default());
    }

    #[test]
    fn the_kinds_have_the_paths_of_the_api_server() {
        use kube::Resource;
        assert_eq!(Service::url_path(&(), Some("shop")), "/api/v1/namespaces/shop/services");
        assert_eq!(EndpointSlice::url_path(&(), None), "/apis/discovery.k8s.io/v1/endpointslices");
        assert_eq!(Namespace::url_path(&(), None), "/api/v1/namespaces");
    }
}
