//! Names with a role each, so that one cannot be passed where another is meant.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text, for logs, metrics and the admin pages.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// Names one set of endpoints: `NAMESPACE/NAME:PORT`, where PORT is the port that callers name (for a Kubernetes
    /// Service, the Service's own port number).
    ClusterId
}

name! {
    /// Names one route, stable over changes of the route's content. Sources write `KIND/NAMESPACE/NAME` and, where
    /// one object makes several routes, `/PART` behind it.
    RouteId
}

name! {
    /// Names one listener, stable over changes of its content.
    ListenerId
}

impl ClusterId {
    /// The cluster of port `port` of the service `name` in `namespace`.
    pub fn new(namespace: &str, name: &str, port: u16) -> Self {
        Self(format!("{namespace}/{name}:{port}").into())
    }

    /// A cluster id made by a source that has no namespaces.
    pub fn from_text(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl RouteId {
    /// A route id from its text; the caller makes it unique among all sources.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl ListenerId {
    /// A listener id from its text; the caller makes it unique among all sources.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

/// The object that asked for something: whom to tell when it cannot be honoured.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceRef {
    /// The kind, as the source spells it: `Service`, `EndpointSlice`, `ConfigMap`, `File`, `Setting`, and `Source` for the
    /// source itself.
    pub kind: Arc<str>,
    /// The namespace; empty where the kind has none.
    pub namespace: Arc<str>,
    /// The name within the namespace.
    pub name: Arc<str>,
}

impl ResourceRef {
    /// The object of this kind, namespace and name.
    pub fn new(kind: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A host name that a request may carry: exact (`shop.example.com`) or a wildcard for one or more leading labels
/// (`*.example.com`). Always lower case, without a trailing dot; an IPv4 or bracketed IPv6 literal is an exact name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Hostname(Arc<str>);

/// Why a text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host name: {why}")]
pub struct InvalidHostname {
    text: String,
    why: &'static str,
}

impl Hostname {
    /// Reads a host name (RFC 1123 labels, at most 253 bytes), optionally with `*.` before it.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidHostname> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        match fault(name) {
            None => Ok(Self(lower.into())),
            Some(why) => Err(InvalidHostname { text: text.to_owned(), why }),
        }
    }

    /// The name as text, a wildcard with its `*.`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For a wildcard, what must stand behind the leading labels, with its dot: `.example.com`.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// Whether a request's host (lower case, without port) is meant by this name.
    pub fn matches(&self, host: &str) -> bool {
        match self.wildcard_suffix() {
            None => *self.0 == *host,
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        }
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name.starts_with('[') {
        let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        return match inner.map(str::parse::<std::net::Ipv6Addr>) {
            Some(Ok(_)) => None,
            _ => Some("what stands in brackets must be an IPv6 address"),
        };
    }
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > 253 {
        return Some("it is longer than 253 bytes");
    }
    if name.contains('*') {
        return Some("a wildcard may only stand as the whole first label, as in *.example.com");
    }
    let label_is_sound = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (!name.split('.').all(label_is_sound))
        .then_some("each label needs 1 to 63 letters, digits or inner hyphens")
}

impl TryFrom<String> for Hostname {
    type Error = InvalidHostname;

    fn try_from(text: String) -> Result<Self, InvalidHostname> {
        Self::parse(&text)
    }
}

/// So that a request's host finds its entry in a map by host name without a copy.
impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_or_more_labels_but_not_for_none() {
        let any = Hostname::parse("*.Example.com").unwrap();
        assert!(any.matches("a.example.com"));
        assert!(any.matches("a.b.example.com"));
        assert!(!any.matches("example.com"));
        assert!(!any.matches("badexample.com"));
    }

    #[test]
    fn what_is_no_host_name_says_why() {
        for text in ["", "a..b", "-a.b", "a b", "*", "a.*.b", "http://a", "a:80", "[::zz]", &"x".repeat(64)] {
            let error = Hostname::parse(text).unwrap_err().to_string();
            assert!(error.contains("is not a host name"), "{text}: {error}");
        }
        for text in ["a", "a.b.", "10.1.2.3", "[::1]", "under_score.svc"] {
            assert!(Hostname::parse(text).is_ok(), "{text}");
        }
    }
}
