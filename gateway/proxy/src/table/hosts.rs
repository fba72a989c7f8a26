//! Rules by host.
//!
//! Three places may know a request's host: the exact names, the wildcards (the longest first) and the rules for any
//! host. All are asked, since the rank decides between them; as sources rank an exact host before a wildcard and that
//! before any host, the later places are mostly passed over after one comparison.

use std::sync::Arc;

use portolan_model::{HostMatch, PortMatch, Role};

use super::compile::{CompiledRoute, CompiledRule};
use super::paths::PathIndex;
use super::{NoMatch, RequestView};

/// The rules that are reachable in one role.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: foldhash::HashMap<portolan_model::Hostname, Host>,
    /// By what must stand behind the leading labels: `.example.com`.
    wildcards: foldhash::HashMap<Box<str>, Host>,
    any: PathIndex,
}

/// The rules of one host name. Few ports are named for one host, so they stand in a list.
#[derive(Debug, Default)]
struct Host {
    ports: Vec<(PortMatch, PathIndex)>,
}

impl HostIndex {
    /// Indexes the routes of this role.
    pub(super) fn new(routes: &[Arc<CompiledRoute>], role: Role) -> Self {
        let reachable = || routes.iter().filter(|route| route.said.roles.contains(role));
        let mut index = Self::default();
        index.exact.reserve(reachable().map(|route| route.said.hosts.len()).sum());
        for route in reachable() {
            index.add(route);
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
        self.any.find(request, &mut best);
        best.ok_or(NoMatch::NoRoute)
    }

    /// The entries that know this host: the exact name, then the longest wildcard first.
    fn hosts(&self, name: &str) -> impl Iterator<Item = &Host> {
        let searched = if self.wildcards.is_empty() { "" } else { name };
        let dots = searched.bytes().enumerate().skip(1).filter(|&(_, byte)| byte == b'.');
        let wildcards = dots.filter_map(|(at, _)| self.wildcards.get(&searched[at..]));
        self.exact.get(name).into_iter().chain(wildcards)
    }

    fn add(&mut self, route: &CompiledRoute) {
        if route.said.hosts.is_empty() {
            for rule in &route.rules {
                self.any.add(rule);
            }
        }
        for HostMatch { host, port } in &route.said.hosts {
            let entry = match host.wildcard_suffix() {
                Some(suffix) => self.wildcards.entry(suffix.into()).or_default(),
                None => self.exact.entry(host.clone()).or_default(),
            };
            let paths = entry.paths_of(*port);
            for rule in &route.rules {
                paths.add(rule);
            }
        }
    }
}

// === impl Host ===

impl Host {
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
