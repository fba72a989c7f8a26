//! Rules by host.
//!
//! Three places may know a request's host: the exact names, the wildcards (the longest first) and the rules for any
//! host. All are asked, since the rank decides between them; as sources rank an exact host before a wildcard and that
//! before any host, the later places are mostly passed over after one comparison.
//!
//! An index follows on the one before: entries of hosts that no changed route names are shared with it, so that one
//! more Service among thousands costs a copy of pointers.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use portolan_model::{HostMatch, Hostname, PortMatch, Role};

use super::compile::{Changes, CompiledRoute, CompiledRule};
use super::paths::PathIndex;
use super::{NoMatch, RequestView};

/// The rules that are reachable in one role.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: foldhash::HashMap<Hostname, Arc<Host>>,
    /// By what must stand behind the leading labels: `.example.com`.
    wildcards: foldhash::HashMap<Box<str>, Arc<Host>>,
    any: Arc<PathIndex>,
}

/// The rules of one host name. Few ports are named for one host, so they stand in a list.
#[derive(Debug, Default)]
struct Host {
    routes: Vec<Arc<CompiledRoute>>,
    ports: Vec<(PortMatch, PathIndex)>,
}

impl HostIndex {
    /// The index of all routes of this role, given the one before and what changed since.
    pub(super) fn follow(
        before: &Self,
        changes: &Changes<'_>,
        all: &[Arc<CompiledRoute>],
        role: Role,
    ) -> Self {
        let mut index = Self {
            exact: before.exact.clone(),
            wildcards: before.wildcards.clone(),
            any: Arc::clone(&before.any),
        };
        let reachable = |route: &&Arc<CompiledRoute>| route.said.roles.contains(role);
        let mut touched = Touched::default();
        for route in changes.gone.iter().copied().filter(reachable) {
            touched.gone(route);
        }
        for route in changes.come.iter().copied().filter(reachable) {
            touched.come(route);
        }
        index.exact.reserve(touched.hosts.len().saturating_sub(index.exact.len()));
        for (host, come) in &touched.hosts {
            index.replace(host, changes, come);
        }
        if touched.any {
            index.any = Arc::new(any_host(all.iter().filter(reachable)));
        }
        index
    }

    /// The rule that answers a request.
    pub(super) fn find(&self, request: &RequestView<'_>) -> Result<&Arc<CompiledRule>, NoMatch> {
        let mut best = None;
        if let Some(name) = request.host {
            let (mut host_known, mut port_known) = (false, false);
            for host in self.hosts(name) {
                host_known = true;
                port_known |= host.find(request, &mut best);
            }
            if host_known && !port_known {
                return Err(NoMatch::UnknownPort);
            }
        }
        if !request.named_only {
            self.any.find(request, &mut best);
        }
        best.ok_or(NoMatch::NoRoute)
    }

    /// The entries that know this host: the exact name, then the longest wildcard first.
    fn hosts(&self, name: &str) -> impl Iterator<Item = &Host> {
        let searched = if self.wildcards.is_empty() { "" } else { name };
        let dots = searched.bytes().enumerate().skip(1).filter(|&(_, byte)| byte == b'.');
        let wildcards = dots.filter_map(|(at, _)| self.wildcards.get(&searched[at..]));
        self.exact.get(name).into_iter().chain(wildcards).map(|host| &**host)
    }

    fn replace(&mut self, host: &Hostname, changes: &Changes<'_>, come: &[&Arc<CompiledRoute>]) {
        match host.wildcard_suffix() {
            Some(suffix) => replace_in(&mut self.wildcards, suffix.into(), host, changes, come),
            None => replace_in(&mut self.exact, host.clone(), host, changes, come),
        }
    }
}

/// The hosts whose entries have to be made anew. In the order of the routes, whose parts lie together in memory.
#[derive(Default)]
struct Touched<'a> {
    /// Each with the routes that come to it.
    hosts: Vec<(&'a Hostname, Vec<&'a Arc<CompiledRoute>>)>,
    places: foldhash::HashMap<&'a Hostname, usize>,
    /// Whether rules for any host are among the changes.
    any: bool,
}

impl<'a> Touched<'a> {
    fn gone(&mut self, route: &'a CompiledRoute) {
        self.any |= route.said.hosts.is_empty();
        for HostMatch { host, .. } in &route.said.hosts {
            self.host(host);
        }
    }

    fn come(&mut self, route: &'a Arc<CompiledRoute>) {
        self.any |= route.said.hosts.is_empty();
        for HostMatch { host, .. } in &route.said.hosts {
            let come = self.host(host);
            if come.last().is_none_or(|last| !Arc::ptr_eq(last, route)) {
                come.push(route);
            }
        }
    }

    fn host(&mut self, host: &'a Hostname) -> &mut Vec<&'a Arc<CompiledRoute>> {
        let place = *self.places.entry(host).or_insert_with(|| {
            self.hosts.push((host, Vec::new()));
            self.hosts.len() - 1
        });
        &mut self.hosts[place].1
    }
}

fn any_host<'a>(routes: impl Iterator<Item = &'a Arc<CompiledRoute>>) -> PathIndex {
    let mut index = PathIndex::default();
    for rule in routes.filter(|route| route.said.hosts.is_empty()).flat_map(|route| &route.rules) {
        index.add(rule);
    }
    index
}

/// Puts the entry of a host whose routes changed in the place of the one before.
fn replace_in<K: Hash + Eq + Borrow<str>>(
    map: &mut foldhash::HashMap<K, Arc<Host>>,
    key: K,
    host: &Hostname,
    changes: &Changes<'_>,
    come: &[&Arc<CompiledRoute>],
) {
    let before = map.get(key.borrow()).map_or(&[][..], |before| &before.routes);
    let kept = before.iter().filter(|route| !changes.is_gone(route));
    let routes = kept.chain(come.iter().copied()).map(Arc::clone).collect::<Vec<_>>();
    if routes.is_empty() {
        map.remove(key.borrow());
    } else {
        map.insert(key, Arc::new(Host::new(host, routes)));
    }
}

// === impl Host ===

impl Host {
    fn new(name: &Hostname, routes: Vec<Arc<CompiledRoute>>) -> Self {
        let mut host = Self::default();
        for route in &routes {
            for HostMatch { port, .. } in route.said.hosts.iter().filter(|said| said.host == *name) {
                let paths = host.paths_of(*port);
                for rule in &route.rules {
                    paths.add(rule);
                }
            }
        }
        host.ports.shrink_to_fit();
        Self { routes, ..host }
    }

    /// Looks for a rule among those for the request's port; false if there is nothing for that port.
    fn find<'a>(&'a self, request: &RequestView<'_>, best: &mut Option<&'a Arc<CompiledRule>>) -> bool {
        let mut port_known = false;
        for (port, paths) in &self.ports {
            if port.matches(request.port) {
                port_known = true;
                paths.find(request, best);
            }
        }
        port_known
    }

    fn paths_of(&mut self, port: PortMatch) -> &mut PathIndex {
        let at = self.ports.iter().position(|(known, _)| *known == port).unwrap_or_else(|| {
            self.ports.push((port, PathIndex::default()));
            self.ports.len() - 1
        });
        &mut self.ports[at].1
    }
}
