//! Who claims what.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::fmt;
use std::hash::BuildHasher;

use portolan_model::{
    ClusterId, Contribution, HostMatch, ListenerId, Match, PathMatch, PortMatch, Role, Route, RouteId,
};

/// A place in the list of holders.
pub(super) type HolderId = u32;

/// Something that only one object can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Claim<'a> {
    Listener(&'a ListenerId),
    Route(&'a RouteId),
    Cluster(&'a ClusterId),
    /// To answer, at listeners of the role, for a host (none means any) what a match describes (none means everything).
    Answer(Role, Option<&'a HostMatch>, Option<&'a Match>),
}

/// Every claim of a contribution.
pub(super) fn of_contribution(said: &Contribution) -> Vec<Claim<'_>> {
    by_part(said).into_iter().flatten().collect()
}

/// The claims of each listener, route and cluster of a contribution.
pub(super) fn by_part(said: &Contribution) -> Vec<Vec<Claim<'_>>> {
    let listeners = said.listeners.iter().map(|it| vec![Claim::Listener(&it.id)]);
    let routes = said.routes.iter().map(|it| of_route(it));
    let clusters = said.clusters.iter().map(|it| vec![Claim::Cluster(&it.id)]);
    listeners.chain(routes).chain(clusters).collect()
}

/// The claims of a route: what it answers first, since that says more than its id.
pub(super) fn of_route(route: &Route) -> Vec<Claim<'_>> {
    let roles = [Role::Edge, Role::Cluster].into_iter().filter(|role| route.roles.contains(*role));
    let hosts = some_or_none(&route.hosts);
    let matches: Vec<_> = route.rules.iter().flat_map(|rule| some_or_none(&rule.matches)).collect();
    let mut claims = Vec::with_capacity(2 * hosts.len() * matches.len() + 1);
    for role in roles {
        for host in &hosts {
            claims.extend(matches.iter().map(|it| Claim::Answer(role, *host, *it)));
        }
    }
    claims.push(Claim::Route(&route.id));
    claims
}

/// Each item, or once none if there are no items, which means no limit.
fn some_or_none<T>(items: &[T]) -> Vec<Option<&T>> {
    if items.is_empty() { vec![None] } else { items.iter().map(Some).collect() }
}

/// Who claims what, the oldest first.
///
/// A claim is kept as its 128-bit hash, since the claims themselves would be most of the store's memory. The hash is
/// keyed at random for each process, so that nobody can make two claims collide; by chance, two of a million do once
/// in 10^26 processes.
#[derive(Default)]
pub(super) struct Claims {
    claimants: HashMap<u128, Claimants>,
    keys: (RandomState, RandomState),
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("claims", &self.claimants.len()).finish_non_exhaustive()
    }
}

/// Nearly every claim has one claimant.
#[derive(Debug)]
enum Claimants {
    One(HolderId),
    /// In order of age.
    Many(Vec<HolderId>),
}

impl Claims {
    /// Who holds the claim.
    pub(super) fn holder(&self, claim: &Claim<'_>) -> Option<HolderId> {
        match self.claimants.get(&self.key(claim))? {
            Claimants::One(id) => Some(*id),
            Claimants::Many(ids) => ids.first().copied(),
        }
    }

    /// Adds a claimant; `order` tells who is older. Returns the others.
    pub(super) fn lay<K: Ord>(
        &mut self,
        claim: &Claim<'_>,
        id: HolderId,
        order: impl Fn(HolderId) -> K,
    ) -> Vec<HolderId> {
        let key = self.key(claim);
        let claimants = match self.claimants.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Claimants::One(id));
                return Vec::new();
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };
        let mut all = claimants.take();
        // An object may claim the same twice.
        all.retain(|other| *other != id);
        let others = all.clone();
        let place = all.partition_point(|other| order(*other) < order(id));
        all.insert(place, id);
        claimants.set(all);
        others
    }

    /// Removes a claimant. Returns the others.
    pub(super) fn withdraw(&mut self, claim: &Claim<'_>, id: HolderId) -> Vec<HolderId> {
        let key = self.key(claim);
        let Entry::Occupied(mut entry) = self.claimants.entry(key) else { return Vec::new() };
        let mut others = entry.get_mut().take();
        others.retain(|other| *other != id);
        match others.is_empty() {
            true => drop(entry.remove()),
            false => entry.get_mut().set(others.clone()),
        }
        others
    }

    /// Whether nobody claims anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.claimants.is_empty()
    }

    fn key(&self, claim: &Claim<'_>) -> u128 {
        let hash = |key: &RandomState| u128::from(key.hash_one(claim));
        hash(&self.keys.0) << 64 | hash(&self.keys.1)
    }
}

impl Claimants {
    fn take(&mut self) -> Vec<HolderId> {
        match self {
            Self::One(id) => vec![*id],
            Self::Many(ids) => std::mem::take(ids),
        }
    }

    fn set(&mut self, ids: Vec<HolderId>) {
        *self = match ids[..] {
            [id] => Self::One(id),
            _ => Self::Many(ids),
        };
    }
}

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(id) => write!(f, "listener {id}"),
            Self::Route(id) => write!(f, "route {id}"),
            Self::Cluster(id) => write!(f, "cluster {id}"),
            Self::Answer(_, host, it) => {
                let path = it.map(|it| &it.path).filter(|path| **path != PathMatch::Any);
                match (host, path) {
                    (None, None) => f.write_str("every host and path"),
                    (None, Some(path)) => write_path(f, path),
                    (Some(host), None) => write_host(f, host),
                    (Some(host), Some(path)) => {
                        write_host(f, host)?;
                        f.write_str(", ")?;
                        write_path(f, path)
                    }
                }
            }
        }
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, HostMatch { host, port }: &HostMatch) -> fmt::Result {
    match port {
        PortMatch::Any | PortMatch::Absent => write!(f, "host {host}"),
        PortMatch::Exact(port) => write!(f, "host {host}:{port}"),
    }
}

fn write_path(f: &mut fmt::Formatter<'_>, path: &PathMatch) -> fmt::Result {
    match path {
        PathMatch::Any => f.write_str("every path"),
        PathMatch::Exact(path) => write!(f, "path {path}"),
        PathMatch::Prefix(path) => write!(f, "path {path}/**"),
        PathMatch::Regex(path) => write!(f, "path matching {path}"),
    }
}
