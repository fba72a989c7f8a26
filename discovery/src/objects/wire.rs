//! How the tolerant types read what is on the wire.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::{APP_NAME_LABEL, PREFIX, SERVICE_NAME_LABEL};

/// Reads `null` as the default: the API server writes empty lists of EndpointSlices so.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads metadata and keeps what Portolan reads of it. Managed fields and the last applied configuration, which are
/// most of an object's bytes, are skipped without being built.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let slim: Metadata = nullable(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp.and_then(|text| text.parse().ok()).map(Time),
        labels: some(slim.labels.0),
        annotations: some(slim.annotations.0),
        ..ObjectMeta::default()
    })
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<String>,
    labels: OwnEntries,
    annotations: OwnEntries,
}

fn some(entries: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!entries.is_empty()).then_some(entries)
}

/// The entries of a map of labels or annotations that Portolan reads.
#[derive(Default)]
struct OwnEntries(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OwnEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_read =
            |key: &str| key.starts_with(PREFIX) || key == SERVICE_NAME_LABEL || key == APP_NAME_LABEL;
        deserializer.deserialize_any(TextMap { keep: is_read }).map(Self)
    }
}

/// Whether there is a map with something in it.
pub(super) fn is_filled_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let map: Option<BTreeMap<String, IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.is_some_and(|map| !map.is_empty()))
}

/// Values other than text (`expose: true` without quotes, which only a manifest file can say) are kept as the text
/// that was meant.
struct TextMap<F> {
    keep: F,
}

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for TextMap<F> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if (self.keep)(&key) {
                let Text(value) = map.next_value()?;
                kept.insert(key, value);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(kept)
    }
}

struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarText).map(Self)
    }
}

struct ScalarText;

impl<'de> Visitor<'de> for ScalarText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Ok(String::new())
    }
}
