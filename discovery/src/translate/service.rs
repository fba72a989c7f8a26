//! From a Service and its EndpointSlices to routes and clusters.

use std::cmp::Reverse;
use std::sync::Arc;

use portolan_model::{
    Affinity, BackendRef, Cluster, ClusterId, ClusterPolicy, Contribution, Filter, Finding, HostMatch,
    Hostname, Match, PathMatch, PortMatch, Rank, Roles, Route, RouteId, Rule,
};

use super::annotations::{Asked, PortChoice, field};
use super::endpoint_slices::Joined;
use super::held::{HeldService, HeldSlice};
use super::text::{is_dns_label, shortened};
use super::{Expose, TranslateConfig};
use crate::objects::PREFIX;

/// What the Service contributes; nothing if it is hidden and has no faults.
pub(super) fn translate<'a>(
    service: &HeldService,
    slices: impl Iterator<Item = &'a HeldSlice> + Clone,
    namespace_exposes: Option<bool>,
    config: &TranslateConfig,
) -> Option<Contribution> {
    let mut said = Contribution { created: service.created, ..Contribution::default() };
    let mut base = ClusterPolicy::clone(&config.policy);
    if service.client_ip_affinity {
        base.affinity = Affinity::ClientIp;
    }
    let asked = Asked::read(&service.resource, service.annotations.iter(), base, &mut said.findings);
    if is_exposed(service, &asked, namespace_exposes, config, &mut said.findings)
        && is_routable(service, &mut said)
    {
        Translation { service, asked: &asked, config }.fill(slices, &mut said);
    }
    (said != Contribution { created: service.created, ..Contribution::default() }).then_some(said)
}

/// The label or annotation by which a Service or a Namespace says whether it is exposed. Another text than `true` or
/// `false` exposes nothing.
fn is_exposed(
    service: &HeldService,
    asked: &Asked,
    namespace_exposes: Option<bool>,
    config: &TranslateConfig,
    findings: &mut Vec<Finding>,
) -> bool {
    if service.is_own {
        if asked.expose == Some(true) {
            let message =
                "this is one of Portolan's own Services, which are never exposed: it would call itself";
            findings.push(Finding::warning(&service.resource, field("expose"), "OwnService", message));
        }
        return false;
    }
    if asked.is_faulty("expose") {
        return false;
    }
    let (namespace, name) = (&*service.resource.namespace, &*service.resource.name);
    let exposed = asked.expose.or(namespace_exposes).unwrap_or(match config.expose {
        Expose::Annotated => false,
        Expose::All => namespace != "kube-system" && (namespace, name) != ("default", "kubernetes"),
    });
    if !exposed && asked.expose.is_none() && service.annotations.iter().next().is_some() {
        let message = format!(
            "the Service has annotations of Portolan but is not exposed; set {PREFIX}expose: \"true\""
        );
        findings.push(Finding::warning(&service.resource, field("expose"), "NotExposed", message));
    }
    exposed
}

/// Whether a Service of this kind and name can have routes at all.
fn is_routable(service: &HeldService, said: &mut Contribution) -> bool {
    let resource = &service.resource;
    if service.type_.as_deref() == Some("ExternalName") {
        let message = "Services of the type ExternalName are not routed: whoever may write one could send the gateway \
                       anywhere; use a Service without selector and an EndpointSlice with the addresses";
        said.findings.push(Finding::error(resource, "spec.type", "ExternalName", message));
        return false;
    }
    if !is_dns_label(&resource.name) || !is_dns_label(&resource.namespace) {
        let message = "the name or the namespace is not a DNS label (lower-case letters, digits, inner hyphens, at most \
                       63), and so cannot stand in a path or host";
        said.findings.push(Finding::error(resource, "metadata.name", "InvalidName", message));
        return false;
    }
    true
}

struct Translation<'a> {
    service: &'a HeldService,
    asked: &'a Asked,
    config: &'a TranslateConfig,
}

/// A TCP port of the Service.
#[derive(Clone, Copy)]
struct TcpPort<'a> {
    /// Its place in `spec.ports`.
    position: usize,
    /// Empty for the unnamed one.
    name: &'a str,
    number: u16,
    is_http: bool,
}

impl<'a> Translation<'a> {
    fn fill<'s>(&self, slices: impl Iterator<Item = &'s HeldSlice> + Clone, said: &mut Contribution) {
        let ports = self.tcp_ports(&mut said.findings);
        let chosen = self.choose_port(&ports, &mut said.findings);
        self.fill_clusters(&ports, slices, said);
        if let Some(chosen) = chosen {
            self.fill_edge_routes(chosen, said);
        }
        said.routes.extend(ports.iter().map(|port| {
            let is_chosen = chosen.is_some_and(|chosen| chosen.number == port.number);
            Arc::new(self.authority_route(*port, is_chosen))
        }));
    }

    fn tcp_ports(&self, findings: &mut Vec<Finding>) -> Vec<TcpPort<'a>> {
        let mut ports = Vec::<TcpPort<'a>>::with_capacity(self.service.ports.len());
        for (position, port) in self.service.ports.iter().enumerate() {
            if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
                continue;
            }
            let number = u16::try_from(port.port).ok().filter(|number| *number != 0);
            let Some(number) = number.filter(|number| ports.iter().all(|port| port.number != *number)) else {
                let message =
                    format!("{} is no port number from 1 to 65535, or stands here twice", port.port);
                let field = format!("spec.ports[{position}].port");
                findings.push(Finding::error(&self.service.resource, field, "InvalidPort", message));
                continue;
            };
            let is_http = port.app_protocol.as_deref() == Some("http");
            ports.push(TcpPort { position, name: port.name.as_deref().unwrap_or_default(), number, is_http });
        }
        ports
    }

    /// The port of the annotation, else the one named `http`, else the one that says it speaks HTTP, else the only
    /// one.
    fn choose_port(&self, ports: &[TcpPort<'a>], findings: &mut Vec<Finding>) -> Option<TcpPort<'a>> {
        if self.asked.is_faulty("port") {
            return None;
        }
        if let Some(wanted) = &self.asked.port {
            let is_wanted = |port: &&TcpPort<'_>| match wanted {
                PortChoice::Number(number) => port.number == *number,
                PortChoice::Name(name) => port.name == name,
            };
            let found = ports.iter().find(is_wanted).copied();
            if found.is_none() {
                findings.push(self.unknown_port(wanted, ports));
            }
            return found;
        }
        let sole = |wanted: &dyn Fn(&TcpPort<'_>) -> bool| {
            let mut matching = ports.iter().filter(|port| wanted(port));
            matching.next().filter(|_| matching.next().is_none()).copied()
        };
        let chosen = sole(&|port| port.name == "http")
            .or_else(|| sole(&|port| port.is_http))
            .or_else(|| sole(&|_| true));
        if chosen.is_none() {
            let (reason, message) = match ports {
                [] => ("NoPort", "the Service has no TCP port, and so nothing to route to".to_owned()),
                _ => (
                    "AmbiguousPort",
                    format!(
                        "which of the TCP ports ({}) is meant? Name one http, or set {PREFIX}port to one of them",
                        listed(ports)
                    ),
                ),
            };
            findings.push(Finding::error(&self.service.resource, "spec.ports", reason, message));
        }
        chosen
    }

    fn unknown_port(&self, wanted: &PortChoice, ports: &[TcpPort<'_>]) -> Finding {
        let wanted = match wanted {
            PortChoice::Number(number) => number.to_string(),
            PortChoice::Name(name) => shortened(name).into_owned(),
        };
        let message = format!("the Service has no TCP port {wanted:?}; it has {}", listed(ports));
        Finding::error(&self.service.resource, field("port"), "UnknownPort", message)
    }

    fn fill_clusters<'s>(
        &self,
        ports: &[TcpPort<'_>],
        slices: impl Iterator<Item = &'s HeldSlice> + Clone,
        said: &mut Contribution,
    ) {
        let resource = &self.service.resource;
        if slices.clone().next().is_none() && (!self.service.has_selector || !self.config.slices_are_made) {
            let message = "no EndpointSlice names this Service, and nothing makes one; until one is written, every \
                           request is answered with 503";
            said.findings.push(Finding::warning(resource, "spec.selector", "NoEndpointSlices", message));
        }
        let joined = Joined::new(self.service, slices, self.config, &mut said.findings);
        let policy = match self.asked.policy == *self.config.policy {
            true => self.config.policy.clone(),
            false => Arc::new(self.asked.policy.clone()),
        };
        for port in ports {
            if joined.has_endpoints() && !joined.has_port(port.name) {
                said.findings.push(self.unserved_port(*port));
            }
            said.clusters.push(Arc::new(Cluster {
                id: self.cluster_id(*port),
                source: resource.clone(),
                endpoints: joined.endpoints(port.name, self.config),
                policy: policy.clone(),
            }));
        }
    }

    fn unserved_port(&self, port: TcpPort<'_>) -> Finding {
        let message = format!(
            "no EndpointSlice of this Service has a port named {:?}, and so port {} has no endpoints; slices are joined \
             by the port's name, not by its number",
            shortened(port.name),
            port.number
        );
        let field = format!("spec.ports[{}].name", port.position);
        Finding::warning(&self.service.resource, field, "UnservedPort", message)
    }

    fn cluster_id(&self, port: TcpPort<'_>) -> ClusterId {
        ClusterId::new(&self.service.resource.namespace, &self.service.resource.name, port.number)
    }

    /// The routes by path and host, for both kinds of listener.
    fn fill_edge_routes(&self, port: TcpPort<'_>, said: &mut Contribution) {
        // A path or host that was asked for and not understood must not open another one instead.
        if self.asked.is_faulty("path") || (self.asked.is_faulty("host") && self.asked.hosts.is_empty()) {
            return;
        }
        let (prefix, strip) = self.path_prefix();
        if self.asked.hosts.is_empty() {
            said.routes.push(Arc::new(self.edge_route(port, None, &prefix, strip)));
        }
        for host in &self.asked.hosts {
            if let Some(roles) = self.roles_of(host, &mut said.findings) {
                said.routes.push(Arc::new(self.edge_route(port, Some((host, roles)), &prefix, strip)));
            }
        }
    }

    /// The path without a trailing slash, and whether it is stripped.
    fn path_prefix(&self) -> (String, bool) {
        let (namespace, name) = (&*self.service.resource.namespace, &*self.service.resource.name);
        match &self.asked.path {
            Some(path) => (path.clone(), self.asked.strip_prefix.unwrap_or(false)),
            None if !self.asked.hosts.is_empty() => (String::new(), false),
            None => {
                let strip = self.asked.strip_prefix.unwrap_or(true);
                match self.is_in_default_namespace() {
                    true => (format!("/{name}"), strip),
                    false => (format!("/{namespace}/{name}"), strip),
                }
            }
        }
    }

    /// Where the annotation can have this host: nowhere, at edge listeners, or everywhere. A cluster listener speaks for
    /// every Service by its own name, exposed or not, so no other may answer to what can be such a name. The form
    /// of the host decides alone, and not which Services and namespaces there are: those may come and go later.
    fn roles_of(&self, host: &Hostname, findings: &mut Vec<Finding>) -> Option<Roles> {
        let resource = &self.service.resource;
        if self.is_reserved(host) {
            let message =
                format!("{host} is a name inside the Kubernetes cluster, which belongs to its Service");
            findings.push(Finding::error(resource, field("host"), "ReservedHost", message));
            return None;
        }
        if !self.may_be_own_name(host) {
            return Some(Roles::ALL);
        }
        let message = format!(
            "{host} is served at edge listeners only: at a cluster listener it could be the name of another Service or \
             its address (NAME, NAME.NAMESPACE, an IP address); for callers inside the Kubernetes cluster use the \
             Service's own name, or a host with two dots or more"
        );
        findings.push(Finding::warning(resource, field("host"), "EdgeOnlyHost", message));
        Some(Roles::EDGE)
    }

    fn is_reserved(&self, host: &Hostname) -> bool {
        let host = host.as_str();
        let ends_in = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        ends_in("svc") || ends_in(&self.config.cluster_domain)
    }

    /// Whether the host can be what callers inside the Kubernetes cluster call some Service.
    fn may_be_own_name(&self, host: &Hostname) -> bool {
        let text = host.as_str();
        let is_address = text.starts_with('[') || text.parse::<std::net::Ipv4Addr>().is_ok();
        let is_short = text.bytes().filter(|byte| *byte == b'.').count() < 2;
        // A wildcard above the cluster domain: *.example.com, if that is k8s.example.com.
        let is_above = |suffix: &str| format!(".svc.{}", self.config.cluster_domain).ends_with(suffix);
        is_address || is_short || host.wildcard_suffix().is_some_and(is_above)
    }

    fn is_in_default_namespace(&self) -> bool {
        self.service.resource.namespace == self.config.default_namespace
    }

    /// One route for each host, since a rule has one rank and the rank of a wildcard is another than that of a name.
    fn edge_route(
        &self,
        port: TcpPort<'_>,
        host: Option<(&Hostname, Roles)>,
        prefix: &str,
        strip: bool,
    ) -> Route {
        let roles = host.map_or(Roles::ALL, |(_, roles)| roles);
        let host = host.map(|(host, _)| host);
        let mut id = self.route_id();
        if let Some(host) = host {
            id = format!("{id}/{host}");
        }
        let hosts =
            host.map(|host| HostMatch { host: host.clone(), port: PortMatch::Any }).into_iter().collect();
        let path = match prefix {
            "" => PathMatch::Any,
            prefix => PathMatch::Prefix(prefix.to_owned()),
        };
        let mut filters = Vec::new();
        if strip && !prefix.is_empty() {
            filters.push(Filter::StripPrefix(prefix.to_owned()));
        }
        self.route(port, Shape { id, roles, hosts, host_rank: host_rank(host), path, filters })
    }

    /// The route by the Service's own names, for callers inside the Kubernetes cluster.
    fn authority_route(&self, port: TcpPort<'_>, is_chosen: bool) -> Route {
        let mut hosts = Vec::new();
        for host in self.authorities() {
            if is_chosen {
                hosts.push(HostMatch { host: host.clone(), port: PortMatch::Absent });
            }
            hosts.push(HostMatch { host, port: PortMatch::Exact(port.number) });
        }
        let id = format!("{}/port-{}", self.route_id(), port.number);
        let (roles, path) = (Roles::CLUSTER, PathMatch::Any);
        self.route(port, Shape { id, roles, hosts, host_rank: OWN_NAME, path, filters: Vec::new() })
    }

    fn authorities(&self) -> impl Iterator<Item = Hostname> {
        let (namespace, name) = (&self.service.resource.namespace, &self.service.resource.name);
        let bare = self.is_in_default_namespace().then(|| name.to_string());
        let domain = &self.config.cluster_domain;
        let qualified = [
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
        ];
        bare.into_iter().chain(qualified).filter_map(|text| Hostname::parse(&text).ok())
    }

    fn route_id(&self) -> String {
        let resource = &self.service.resource;
        format!("Service/{}/{}", resource.namespace, resource.name)
    }

    fn route(&self, port: TcpPort<'_>, shape: Shape) -> Route {
        let Shape { id, roles, hosts, host_rank, path, mut filters } = shape;
        let id: Arc<str> = id.into();
        filters.extend(self.asked.upstream_host.clone().map(Filter::RewriteHost));
        let rule = Rule {
            rank: Rank {
                order: 0,
                specificity: Reverse([host_rank, path_rank(&path), 0]),
                created: self.service.created,
                tie: (id.clone(), 0),
            },
            matches: match path {
                PathMatch::Any => Vec::new(),
                path => vec![Match { path, ..Match::default() }],
            },
            filters,
            backends: vec![BackendRef { cluster: self.cluster_id(port), weight: 1 }],
        };
        Route { id: RouteId::new(id), source: self.service.resource.clone(), roles, hosts, rules: vec![rule] }
    }
}

/// What tells the routes of one Service apart.
struct Shape {
    id: String,
    roles: Roles,
    hosts: Vec<HostMatch>,
    host_rank: u32,
    path: PathMatch,
    filters: Vec<Filter>,
}

/// A Service's own name inside the Kubernetes cluster goes before every host that an annotation can claim: nobody may
/// take requests for another's name.
const OWN_NAME: u32 = u32::MAX;
const EXACT_HOST: u32 = 1 << 16;

/// An exact host before wildcards, of these the longest first, all before any host.
fn host_rank(host: Option<&Hostname>) -> u32 {
    match host.map(Hostname::wildcard_suffix) {
        None => 0,
        Some(None) => EXACT_HOST,
        Some(Some(suffix)) => u32::try_from(suffix.len()).unwrap_or(EXACT_HOST - 1),
    }
}

/// The longer path first; of the same length, an exact one first.
fn path_rank(path: &PathMatch) -> u32 {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX / 4) * 2;
    match path {
        PathMatch::Any => 0,
        PathMatch::Prefix(path) | PathMatch::Regex(path) => length(path),
        PathMatch::Exact(path) => length(path) + 1,
    }
}

fn listed(ports: &[TcpPort<'_>]) -> String {
    let names = ports.iter().map(|port| match port.name {
        "" => port.number.to_string(),
        name => format!("{} = {}", shortened(name), port.number),
    });
    match names.collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => "none".to_owned(),
        names => names,
    }
}
