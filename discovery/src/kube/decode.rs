//! What the API server's JSON says, one malformed object at a time.
//!
//! The common case is decoded straight into the slim types. Only when that fails is the same text read a second time,
//! loosely, to find out whose object it is.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::WatchEvent;
use portolan_model::ResourceRef;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::request::{Failure, from_status};
use super::watch::Malformed;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One line of a watch.
#[derive(Debug)]
pub(crate) enum Line<K> {
    Blank,
    Applied(K),
    Deleted { resource: ResourceRef, version: String },
    Malformed { malformed: Malformed, version: String },
    Bookmark { version: String, initial_events_end: bool },
    Failed(Failure),
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page<K> {
    pub(crate) objects: Vec<K>,
    pub(crate) malformed: Vec<Malformed>,
    pub(crate) version: String,
    pub(crate) continue_token: Option<String>,
}

/// Reads one line of a watch.
///
/// # Errors
/// [`Failure::Garbled`] when it is no watch event at all.
pub(crate) fn decode_line<K>(kind: &Arc<str>, line: &[u8]) -> Result<Line<K>, Failure>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned,
{
    if line.trim_ascii().is_empty() {
        return Ok(Line::Blank);
    }
    match serde_json::from_slice::<WatchEvent<K>>(line) {
        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) if has_name(object.meta()) => {
            Ok(Line::Applied(object))
        }
        Ok(WatchEvent::Deleted(object)) if has_name(object.meta()) => Ok(Line::Deleted {
            resource: reference(kind, object.meta()),
            version: object.meta().resource_version.clone().unwrap_or_default(),
        }),
        Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_)) => {
            Err(Failure::Garbled("an event on an object without a name".into()))
        }
        Ok(WatchEvent::Bookmark(bookmark)) => Ok(Line::Bookmark {
            version: bookmark.metadata.resource_version,
            initial_events_end: bookmark.metadata.annotations.contains_key(INITIAL_EVENTS_END),
        }),
        Ok(WatchEvent::Error(status)) => Ok(Line::Failed(from_status(&status))),
        Err(error) => decode_loosely(kind, line, &error),
    }
}

/// Reads one page of a list.
///
/// # Errors
/// [`Failure::Garbled`] when it is no list.
pub(crate) fn decode_page<K>(kind: &Arc<str>, bytes: &[u8]) -> Result<Page<K>, Failure>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned,
{
    if let Ok(list) = serde_json::from_slice::<List<K>>(bytes) {
        let objects: Vec<K> = list.items.unwrap_or_default();
        if objects.iter().all(|object| has_name(object.meta())) {
            return Ok(page(list.metadata, objects, Vec::new()));
        }
    }
    let list: List<Value> =
        serde_json::from_slice(bytes).map_err(|error| Failure::Garbled(error.to_string()))?;
    let (mut objects, mut malformed) = (Vec::new(), Vec::new());
    for item in list.items.unwrap_or_default() {
        let resource = loose_reference(kind, &item);
        match serde_path_to_error::deserialize::<_, K>(item) {
            Ok(object) if has_name(object.meta()) => objects.push(object),
            Ok(_) => malformed.push(Malformed::new(resource, "metadata.name", "it is missing")),
            Err(error) => malformed.push(Malformed::new(
                resource,
                &error.path().to_string(),
                &error.inner().to_string(),
            )),
        }
    }
    Ok(page(list.metadata, objects, malformed))
}

/// The object's reference.
pub(crate) fn reference(kind: &Arc<str>, meta: &ObjectMeta) -> ResourceRef {
    ResourceRef::new(
        Arc::clone(kind),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

fn has_name(meta: &ObjectMeta) -> bool {
    meta.name.as_ref().is_some_and(|name| !name.is_empty())
}

fn page<K>(metadata: ListMeta, objects: Vec<K>, malformed: Vec<Malformed>) -> Page<K> {
    let continue_token = metadata.continue_token.filter(|token| !token.is_empty());
    Page { objects, malformed, version: metadata.resource_version.unwrap_or_default(), continue_token }
}

fn decode_loosely<K>(kind: &Arc<str>, line: &[u8], error: &serde_json::Error) -> Result<Line<K>, Failure>
where
    K: DeserializeOwned,
{
    let garbled = || {
        let start = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        Failure::Garbled(format!("{error} in a watch event that starts with {start:?}"))
    };
    let event: Event<'_> = serde_json::from_slice(line).map_err(|_| garbled())?;
    let resource = loose_reference(kind, &event.object);
    if resource.name.is_empty() {
        // A status instead of an event: how some servers and proxies end a watch.
        return match serde_json::from_slice::<kube::core::Status>(line) {
            Ok(status) if status.code != 0 => Ok(Line::Failed(from_status(&status))),
            Ok(_) | Err(_) => Err(garbled()),
        };
    }
    let version = event.object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    match event.kind.as_ref() {
        "ADDED" | "MODIFIED" => {
            let found = serde_path_to_error::deserialize::<_, K>(event.object).err();
            let (field, error) = match found {
                Some(found) => (found.path().to_string(), found.inner().to_string()),
                None => (String::new(), error.to_string()),
            };
            Ok(Line::Malformed { malformed: Malformed::new(resource, &field, &error), version })
        }
        // To be gone an object need not be well.
        "DELETED" => Ok(Line::Deleted { resource, version }),
        _ => Err(garbled()),
    }
}

fn loose_reference(kind: &Arc<str>, object: &Value) -> ResourceRef {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    ResourceRef::new(Arc::clone(kind), text("namespace"), text("name"))
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct List<K> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "Option::default")]
    items: Option<Vec<K>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    fn line(text: &str) -> Result<Line<Service>, Failure> {
        decode_line(&"Service".into(), text.as_bytes())
    }

    #[test]
    fn a_malformed_object_is_known_by_name_and_version() {
        let text = r#"{"type":"MODIFIED","object":{"metadata":{"namespace":"shop","name":"orders","resourceVersion":"7"},"spec":{"ports":3}}}"#;
        let Ok(Line::Malformed { malformed, version }) = line(text) else { panic!("malformed") };
        assert_eq!(malformed.resource, ResourceRef::new("Service", "shop", "orders"));
        assert_eq!(version, "7");
        assert!(malformed.error.contains("invalid type"), "{}", malformed.error);
        assert_eq!(malformed.field, "spec.ports");
        let text = text.replace("MODIFIED", "DELETED");
        assert!(matches!(line(&text), Ok(Line::Deleted { .. })), "a malformed object can still be deleted");
    }

    #[test]
    fn what_is_no_event_is_garbled() {
        for text in [
            "<html>",
            "{\"type\":\"ADDED\",\"object\":{}}",
            "{\"type\":\"ADDED\",\"obj",
            "null",
            "[]",
            r#"{"type":"SPLIT","object":{"metadata":{"name":"a"}}}"#,
            "\u{0}\u{1}",
        ] {
            assert!(matches!(line(text), Err(Failure::Garbled(_))), "{text}");
        }
        assert!(matches!(line(" "), Ok(Line::Blank)));
    }

    #[test]
    fn an_error_event_and_a_bare_status_carry_their_code() {
        for text in [
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old","reason":"Expired"}}"#,
            r#"{"kind":"Status","code":410,"message":"too old","reason":"Expired"}"#,
        ] {
            let Ok(Line::Failed(failure)) = line(text) else { panic!("{text}") };
            assert!(failure.is_gone(), "{text}");
        }
    }

    #[test]
    fn one_malformed_item_leaves_the_rest_of_the_page() {
        let text = r#"{"metadata":{"resourceVersion":"9","continue":""},"items":[
            {"metadata":{"namespace":"shop","name":"good"}},
            {"metadata":{"namespace":"shop","name":"bad"},"spec":"text"},
            {"metadata":{"namespace":"shop"}},
            {"metadata":{"namespace":"shop","name":"fine"}}]}"#;
        let page: Page<Service> = decode_page(&"Service".into(), text.as_bytes()).unwrap();
        let names: Vec<_> =
            page.objects.iter().map(|object| object.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["good", "fine"]);
        assert_eq!(page.malformed[0].resource.name.as_ref(), "bad");
        assert_eq!(page.malformed.len(), 2);
        assert_eq!((page.version.as_str(), page.continue_token), ("9", None));
        let empty: Page<Service> = decode_page(&"Service".into(), br#"{"items":null}"#).unwrap();
        assert!(empty.objects.is_empty() && empty.version.is_empty());
        assert!(decode_page::<Service>(&"Service".into(), b"<html>").is_err());
    }
}
