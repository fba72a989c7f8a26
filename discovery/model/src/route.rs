//! Which requests go where.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, Filter, Hostname, ResourceRef, Roles, RouteId};

/// Rules that one object asked for, under common hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name, in metrics, logs and the admin pages.
    pub id: RouteId,
    /// The object that asked for it.
    pub source: ResourceRef,
    /// The listeners at which it is reachable.
    pub roles: Roles,
    /// The authorities it answers to; empty means any.
    pub hosts: Vec<HostMatch>,
    /// What it does, in no particular order: the rank of each rule decides.
    pub rules: Vec<Rule>,
}

/// One step of routing: if any match holds, the filters run and a backend answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its place among all rules of all routes; of those that match a request the lowest wins.
    pub rank: Rank,
    /// Alternatives; empty means that every request matches.
    pub matches: Vec<Match>,
    /// What is done to the request and its response, in this order on the way in and in reverse on the way out.
    pub filters: Vec<Filter>,
    /// Who answers, by weight; empty means nobody, and the request fails.
    pub backends: Vec<BackendRef>,
}

/// A share of a rule's requests for one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRef {
    /// The cluster that answers.
    pub cluster: ClusterId,
    /// Its share, relative to the sum over the rule's backends; 0 takes none.
    pub weight: u32,
}

/// A host together with what the authority's port may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostMatch {
    /// The host name, exact or wildcard.
    pub host: Hostname,
    /// Which ports in the authority are meant.
    pub port: PortMatch,
}

/// What the port in a request's authority (`host:port`) may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMatch {
    /// Any port, or none: the port says nothing about the service (edge hosts).
    Any,
    /// No port in the authority.
    Absent,
    /// Exactly this port in the authority.
    Exact(u16),
}

impl PortMatch {
    /// Whether an authority with this port (or none) is meant.
    pub fn matches(self, port: Option<u16>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => port.is_none(),
            Self::Exact(wanted) => port == Some(wanted),
        }
    }
}

/// One alternative of a rule: all of its parts must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Match {
    /// What the path must be.
    pub path: PathMatch,
    /// The method, where only one is meant.
    pub method: Option<String>,
    /// Header fields that must be there; names in lower case.
    pub headers: Vec<NameValueMatch>,
    /// Query parameters that must be there; names as they stand in the query.
    pub query: Vec<NameValueMatch>,
}

/// What a request's path (without query) must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// This path, byte for byte.
    Exact(String),
    /// This path or one below it, by whole segments: `/a` means `/a`, `/a/` and `/a/b`, not `/ab`. Without a trailing
    /// slash.
    Prefix(String),
    /// A regular expression (the `regex` crate's syntax) that must match the whole path.
    Regex(String),
}

impl PathMatch {
    /// Whether the path `path` is meant; `None` for a regular expression, which has to be compiled first.
    pub fn matches(&self, path: &str) -> Option<bool> {
        match self {
            Self::Any => Some(true),
            Self::Exact(exact) => Some(path == exact),
            Self::Prefix(prefix) => Some(
                path.strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            ),
            Self::Regex(_) => None,
        }
    }
}

/// A named value (header field or query parameter) and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NameValueMatch {
    /// The name of the header field or query parameter.
    pub name: String,
    /// What its value must be; with several values of one name, any of them may match.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueMatch {
    /// Anything, but it must be there.
    Present,
    /// This text, byte for byte.
    Exact(String),
    /// A regular expression (the `regex` crate's syntax) that must match the whole value.
    Regex(String),
}

/// A rule's place in the total order of all rules; lower wins. Its source makes it, by the rules of that source
/// (longest path first, Spring's `order`, the precedence of Gateway API); no two rules may have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// An order that the author gave by hand; 0 where there is none.
    pub order: i64,
    /// How specific the rule is: host, path, then the rest, each higher before lower.
    pub specificity: Reverse<[u32; 3]>,
    /// When the object was created, in seconds since the epoch: the oldest wins.
    pub created: i64,
    /// Makes the order total: the route's id and the rule's number in it.
    pub tie: (Arc<str>, u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let prefix = PathMatch::Prefix("/orders".into());
        for (path, expected) in
            [("/orders", true), ("/orders/", true), ("/orders/7", true), ("/ordersx", false), ("/", false)]
        {
            assert_eq!(prefix.matches(path), Some(expected), "{path}");
        }
        let root = PathMatch::Prefix(String::new());
        assert_eq!(root.matches("/anything"), Some(true));
    }

    #[test]
    fn the_more_specific_rank_comes_first() {
        let rank = |order, path, created| Rank {
            order,
            specificity: Reverse([0, path, 0]),
            created,
            tie: ("r".into(), 0),
        };
        assert!(rank(0, 10, 5) < rank(0, 4, 1), "a longer path beats an older rule");
        assert!(rank(0, 4, 1) < rank(0, 4, 5), "of equals the oldest wins");
        assert!(rank(-1, 0, 9) < rank(0, 10, 1), "an order given by hand beats everything");
    }
}
