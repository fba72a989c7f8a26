//! Rules by host.

use std::sync::Arc;

use portolan_model::Role;

use super::compile::{CompiledRoute, CompiledRule};
use super::{NoMatch, RequestView};

#[derive(Debug, Default)]
pub(super) struct HostIndex {
    rules: Vec<(Arc<CompiledRoute>, Arc<CompiledRule>)>,
}

impl HostIndex {
    pub(super) fn new(routes: &[Arc<CompiledRoute>], role: Role) -> Self {
        let reachable = routes.iter().filter(|route| route.said.roles.contains(role));
        let mut rules = reachable
            .flat_map(|route| route.rules.iter().map(|rule| (Arc::clone(route), Arc::clone(rule))))
            .collect::<Vec<_>>();
        rules.sort_by(|(_, a), (_, b)| a.order(b));
        Self { rules }
    }

    pub(super) fn find(&self, request: &RequestView<'_>) -> Result<&Arc<CompiledRule>, NoMatch> {
        let (mut host_known, mut port_known) = (false, false);
        let mut found = None;
        for (route, rule) in &self.rules {
            let hosts = &route.said.hosts;
            let host = request.host.unwrap_or_default();
            host_known |= hosts.iter().any(|h| h.host.matches(host));
            let here = hosts.iter().any(|h| h.host.matches(host) && h.port.matches(request.port));
            port_known |= here;
            if found.is_none()
                && (hosts.is_empty() || here)
                && rule.matches.iter().any(|m| m.miss(request).is_none())
            {
                found = Some(rule);
            }
        }
        if host_known && !port_known { Err(NoMatch::UnknownPort) } else { found.ok_or(NoMatch::NoRoute) }
    }
}
