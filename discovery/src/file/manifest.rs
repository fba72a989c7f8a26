//! From the text of a manifest file to objects.

use std::fmt;

use portolan_model::{Finding, ResourceRef};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::objects::{EndpointSlice, Namespace, Service};
use crate::translate::ObjectEvent;

/// An object of a kind that is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Namespace.
    Namespace(Namespace),
}

impl Object {
    /// Who it is, in findings.
    pub fn resource(&self) -> ResourceRef {
        match self {
            Self::Service(object) => object.resource(),
            Self::EndpointSlice(object) => object.resource(),
            Self::Namespace(object) => object.resource(),
        }
    }
}

impl From<Object> for ObjectEvent {
    fn from(object: Object) -> Self {
        match object {
            Object::Service(object) => Self::Service(object),
            Object::EndpointSlice(object) => Self::EndpointSlice(object),
            Object::Namespace(object) => Self::Namespace(object),
        }
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    pub(super) objects: Vec<Object>,
    /// Objects that are there but cannot be read.
    pub(super) malformed: Vec<ResourceRef>,
    pub(super) findings: Vec<Finding>,
}

/// Why a file as a whole cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Line and column, from 1, where they are known.
    pub(super) position: Option<(u64, u64)>,
    pub(super) why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Reads the documents of a file. Kinds that are not read are passed over. An object whose shape is wrong is a finding
/// and hurts no other; a document that is no object at all makes the file unreadable, since then it is likely half
/// written.
pub(super) fn read(text: &str, default_namespace: &str) -> Result<Manifest, Unreadable> {
    let mut reader = Reader { default_namespace, manifest: Manifest::default() };
    for document in documents(text)? {
        reader.read(document, None)?;
    }
    Ok(reader.manifest)
}

/// YAML, and so JSON too.
fn documents(text: &str) -> Result<Vec<Value>, Unreadable> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: 100_000,
            max_events: 4_000_000,
            max_nodes: 2_000_000,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| Unreadable {
        position: error.location().map(|at| (at.line(), at.column())),
        why: bare(&error.to_string()),
    })
}

/// The message without the position that stands before or behind it.
fn bare(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let first = match first.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest,
        None => first,
    };
    first.split(" at line ").next().unwrap_or(first).to_owned()
}

/// The kind that is read and that this would be but for its case.
fn meant(version: &str, kind: &str) -> Option<&'static str> {
    let kinds: &[_] = match version {
        "v1" => &["Service", "Namespace", "List", "ServiceList", "NamespaceList"],
        version if version.starts_with("discovery.k8s.io/") => &["EndpointSlice", "EndpointSliceList"],
        _ => &[],
    };
    kinds.iter().copied().find(|known| *known != kind && known.eq_ignore_ascii_case(kind))
}

struct Reader<'a> {
    default_namespace: &'a str,
    manifest: Manifest,
}

impl Reader<'_> {
    /// `implied` is the type of the items of a typed list, which need not say it again.
    fn read(&mut self, document: Value, implied: Option<(&str, &str)>) -> Result<(), Unreadable> {
        if document.is_null() {
            return Ok(());
        }
        let text = |field: &str| document.get(field).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (
            text("apiVersion").or(implied.map(|(version, _)| version)),
            text("kind").or(implied.map(|(_, kind)| kind)),
        ) else {
            let why = "a document has no apiVersion or no kind, and so is no Kubernetes object".to_owned();
            return Err(Unreadable { position: None, why });
        };
        match (version, kind) {
            ("v1", "Service") => self.take(document, "Service", Object::Service),
            ("v1", "Namespace") => self.take(document, "Namespace", Object::Namespace),
            (version, "EndpointSlice") if version.starts_with("discovery.k8s.io/") => {
                self.take(document, "EndpointSlice", Object::EndpointSlice);
            }
            (version, kind)
                if kind.ends_with("List") && document.get("items").is_some_and(Value::is_array) =>
            {
                let (version, kind) = (version.to_owned(), kind.trim_end_matches("List").to_owned());
                // A plain List says nothing of its items.
                let implied = (!kind.is_empty()).then_some((&*version, &*kind));
                return self.read_items(document, implied);
            }
            (version, kind) => match meant(version, kind) {
                Some(meant) => self.warn_of_case(&document, kind, meant),
                None => tracing::debug!(version, kind, "a kind that is not read"),
            },
        }
        Ok(())
    }

    fn warn_of_case(&mut self, document: &Value, kind: &str, meant: &str) {
        let text = |field: &str| document["metadata"][field].as_str().unwrap_or_default();
        let namespace = match text("namespace") {
            "" if meant != "Namespace" => self.default_namespace,
            namespace => namespace,
        };
        let resource = ResourceRef::new(meant, namespace, text("name"));
        let message = format!("there is no kind {kind:?}, and so the object is left out; write {meant}");
        self.manifest.findings.push(Finding::warning(&resource, "kind", "UnknownKind", message));
    }

    fn read_items(&mut self, mut list: Value, implied: Option<(&str, &str)>) -> Result<(), Unreadable> {
        let Value::Array(items) = list["items"].take() else { return Ok(()) };
        items.into_iter().try_for_each(|item| self.read(item, implied))
    }

    fn take<T: DeserializeOwned>(&mut self, mut document: Value, kind: &str, object: fn(T) -> Object) {
        if kind != "Namespace" {
            self.fill_namespace(&mut document);
        }
        let text = |field: &str| document["metadata"][field].as_str().unwrap_or_default();
        let resource = ResourceRef::new(kind, text("namespace"), text("name"));
        self.warn_of_unquoted(&resource, &document["metadata"]);
        if resource.name.is_empty() {
            let message = "the object has no name and is left out";
            self.manifest.findings.push(Finding::error(
                &resource,
                "metadata.name",
                "MalformedObject",
                message,
            ));
            return;
        }
        match serde_path_to_error::deserialize(document) {
            Ok(read) => self.manifest.objects.push(object(read)),
            Err(error) => {
                let message = format!("{}; the object's last good state stays in force", error.inner());
                let finding = Finding::error(&resource, error.path().to_string(), "MalformedObject", message);
                self.manifest.findings.push(finding);
                self.manifest.malformed.push(resource);
            }
        }
    }

    fn fill_namespace(&self, document: &mut Value) {
        let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        let namespace = metadata.entry("namespace").or_insert(Value::Null);
        if namespace.as_str().is_none_or(str::is_empty) {
            *namespace = self.default_namespace.into();
        }
    }

    /// Values that are not text are read as what was meant, but an API server refuses them.
    fn warn_of_unquoted(&mut self, resource: &ResourceRef, metadata: &Value) {
        for map in ["annotations", "labels"] {
            let entries = metadata[map].as_object().into_iter().flatten();
            for (key, value) in entries.filter(|(_, value)| value.is_boolean() || value.is_number()) {
                let message = format!(
                    "{value} without quotes is refused by a Kubernetes API server; write \"{value}\""
                );
                let field = format!("metadata.{map}[\"{key}\"]");
                self.manifest.findings.push(Finding::warning(resource, field, "UnquotedValue", message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(manifest: &Manifest) -> Vec<String> {
        manifest.objects.iter().map(|object| object.resource().to_string()).collect()
    }

    #[test]
    fn documents_lists_and_other_kinds() {
        let text = r"
apiVersion: v1
kind: Service
metadata: {name: a}
---
# nothing here
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: not-ours}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: b, namespace: other}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: b-1}}
---
apiVersion: v1
kind: ServiceList
items: [{metadata: {name: c}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";
        let manifest = read(text, "shop").unwrap();
        let expected = [
            "Service shop/a",
            "Service other/b",
            "EndpointSlice shop/b-1",
            "Service shop/c",
            "Namespace shop",
        ];
        assert_eq!(names(&manifest), expected);
        assert!(manifest.findings.is_empty(), "{:?}", manifest.findings);
    }

    #[test]
    fn json_is_read_too() {
        let manifest =
            read(r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}"#, "d").unwrap();
        assert_eq!(names(&manifest), ["Service d/a"]);
    }

    #[test]
    fn what_is_not_yaml_says_where() {
        let error = read("apiVersion: v1\nkind: Service\nmetadata: {name: a\n", "d").unwrap_err();
        let (line, _) = error.position.unwrap();
        assert!(line >= 3, "{error}");
        assert!(!error.why.contains("line "), "the position stands once: {error}");
    }

    #[test]
    fn what_is_no_object_is_half_written() {
        for text in ["just a text", "- a\n- b", "kind: Service", "apiVersion: v1\nkind:"] {
            let error = read(text, "d").unwrap_err();
            assert!(error.why.contains("no Kubernetes object"), "{text}: {error}");
        }
        for text in ["", "---\n", "# only a comment\n"] {
            assert!(read(text, "d").unwrap().objects.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_malformed_object_hurts_no_other() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: web}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: b}\n---\napiVersion: v1\nkind: Service\n";
        let manifest = read(text, "d").unwrap();
        assert_eq!(names(&manifest), ["Service d/b"]);
        assert_eq!(manifest.malformed, [ResourceRef::new("Service", "d", "a")]);
        assert_eq!(manifest.findings[0].field, "spec.ports");
        assert_eq!(manifest.findings[1].field, "metadata.name");
    }

    #[test]
    fn a_kind_in_another_case_is_told() {
        let text = "{apiVersion: v1, kind: service, metadata: {name: a}}\n---\n\
                    {apiVersion: discovery.k8s.io/v1, kind: Endpointslice, metadata: {name: b, namespace: shop}}\n---\n\
                    {apiVersion: v1, kind: namespace, metadata: {name: c}}\n---\n\
                    {apiVersion: example.com/v1, kind: service, metadata: {name: not-ours}}\n---\n\
                    {apiVersion: v1, kind: list, items: []}\n";
        let manifest = read(text, "d").unwrap();
        let told: Vec<_> = manifest
            .findings
            .iter()
            .map(|it| format!("{} {}: {}", it.reason, it.resource, it.field))
            .collect();
        assert_eq!(told[0], "UnknownKind Service d/a: kind");
        assert_eq!(told[1], "UnknownKind EndpointSlice shop/b: kind");
        assert_eq!(told[2], "UnknownKind Namespace c: kind");
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(manifest.findings[0].message.contains("write Service"), "{}", manifest.findings[0]);
    }

    #[test]
    fn values_without_quotes_mean_what_was_meant_with_a_warning() {
        let text = "{apiVersion: v1, kind: Service, metadata: {name: a, annotations: {portolan.dev/expose: true, n: 1}}}";
        let manifest = read(text, "d").unwrap();
        let Object::Service(service) = &manifest.objects[0] else { panic!() };
        assert_eq!(service.metadata.annotations.as_ref().unwrap()["portolan.dev/expose"], "true");
        let reasons: Vec<_> = manifest.findings.iter().map(|it| &*it.reason).collect();
        assert_eq!(reasons, ["UnquotedValue", "UnquotedValue"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z0-9:{}\\[\\],'\"&*|>!%#~ \n]{0,80}", cut in 0_usize..200) {
            let whole = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: 1}}\nspec:\n  ports:\n  - port: 80\n";
            let begin = &whole[..cut.min(whole.len())];
            for text in [text.clone(), begin.to_owned(), format!("{begin}{text}")] {
                if let Err(unreadable) = read(&text, "d") {
                    proptest::prop_assert!(!unreadable.why.is_empty(), "{text:?}");
                }
            }
        }
    }
}
