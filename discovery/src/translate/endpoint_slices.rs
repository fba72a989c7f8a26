//! From the EndpointSlices of a Service to the endpoints of its clusters.
//!
//! A Service's slices are written one by one and never together, by several writers, and any of them may be odd. So
//! nothing here depends on their order, what is odd is left out with a finding, and the rest counts:
//!
//! - A port of the Service is found in a slice by its *name*; the number is the slice's own.
//! - An address that stands in two slices is one endpoint; the copy in the better state counts.
//! - A pod with an IPv4 and an IPv6 address is one endpoint, in the family that the Service prefers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_model::{Endpoint, EndpointKey, Finding, Readiness, ResourceRef};

use super::TranslateConfig;
use super::annotations::{not_understood, unknown_keys};
use super::held::{HeldAddress, HeldEndpoint, HeldService, HeldSlice};
use super::text::shortened;
use crate::objects::{Conditions, Hints, PREFIX, SlicePort};

/// The usable part of a Service's slices.
pub(super) struct Joined<'a> {
    slices: Vec<UsableSlice<'a>>,
    prefers_ipv6: bool,
}

struct UsableSlice<'a> {
    ports: &'a [SlicePort],
    weight: u16,
    endpoints: Vec<(IpAddr, &'a HeldEndpoint)>,
}

impl<'a> Joined<'a> {
    /// Takes what is usable of the slices of `service`, and says in `findings` what is not.
    pub(super) fn new(
        service: &HeldService,
        slices: impl Iterator<Item = &'a HeldSlice>,
        config: &TranslateConfig,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let usable = slices.map(|slice| UsableSlice {
            ports: &slice.ports,
            weight: weight(slice, findings),
            endpoints: usable_endpoints(slice, config, findings),
        });
        Self { slices: usable.collect(), prefers_ipv6: service.prefers_ipv6 }
    }

    /// Whether there is any endpoint, on whatever port.
    pub(super) fn has_endpoints(&self) -> bool {
        self.slices.iter().any(|slice| !slice.endpoints.is_empty())
    }

    /// Whether any slice has the port of this name (empty for the unnamed one).
    pub(super) fn has_port(&self, name: &str) -> bool {
        self.slices.iter().any(|slice| slice.ports.iter().any(|port| is_named(port, name)))
    }

    /// The endpoints behind the Service's port of this name, each address once, sorted by key.
    pub(super) fn endpoints(&self, port: &str, config: &TranslateConfig) -> Arc<[Endpoint]> {
        let mut candidates = self.candidates(port);
        one_family_each(&mut candidates, self.prefers_ipv6);
        // The best copy of an address comes first, and stays.
        candidates.sort_unstable_by(|a, b| {
            let quality = |it: &Candidate<'_>| {
                (it.endpoint.key.address, it.endpoint.readiness, Reverse(it.endpoint.weight))
            };
            quality(a).cmp(&quality(b)).then_with(|| b.endpoint.key.uid.cmp(&a.endpoint.key.uid))
        });
        candidates.dedup_by_key(|it| it.endpoint.key.address);
        prefer_near(&mut candidates, config);
        candidates.into_iter().map(|it| it.endpoint).collect()
    }

    fn candidates(&self, port: &str) -> Vec<Candidate<'a>> {
        let mut candidates = Vec::with_capacity(self.slices.iter().map(|slice| slice.endpoints.len()).sum());
        for slice in &self.slices {
            let numbers =
                slice.ports.iter().filter(|it| is_named(it, port)).filter_map(|it| port_number(it.port?));
            for number in numbers {
                candidates.extend(slice.endpoints.iter().map(|(address, held)| Candidate {
                    endpoint: Endpoint {
                        key: EndpointKey {
                            address: SocketAddr::new(*address, number),
                            uid: held.uid.clone(),
                        },
                        readiness: readiness(held.conditions),
                        weight: slice.weight,
                        priority: 0,
                    },
                    hints: held.hints.as_deref(),
                }));
            }
        }
        candidates
    }
}

struct Candidate<'a> {
    endpoint: Endpoint,
    hints: Option<&'a Hints>,
}

/// A TCP port of this name.
fn is_named(port: &SlicePort, name: &str) -> bool {
    port.name.as_deref().unwrap_or_default() == name && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

fn port_number(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// What the conditions mean. An absent `ready` means ready (the writer does not know better), an absent `serving` is
/// as `ready` (older writers), an absent `terminating` means no.
fn readiness(conditions: Conditions) -> Readiness {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    let terminating = conditions.terminating.unwrap_or(false);
    match (ready, serving && terminating) {
        // Also of a pod that is not ready or on its way out, if the Service publishes such: the slice knows.
        (true, _) => Readiness::Ready,
        (false, true) => Readiness::Draining,
        (false, false) => Readiness::NotReady,
    }
}

/// A pod of a dual-stack Service stands in the slices of both families. It is one endpoint, in the preferred family.
/// Where no pod is named (slices made by hand), the families are taken to list the same endpoints.
fn one_family_each(candidates: &mut Vec<Candidate<'_>>, prefers_ipv6: bool) {
    let is_preferred = |it: &Candidate<'_>| it.endpoint.key.address.is_ipv6() == prefers_ipv6;
    let preferred = candidates.iter().filter(|it| is_preferred(it));
    let pods: HashSet<Option<Arc<str>>> = match preferred.clone().count() {
        // Nearly every Service has one family; then there is nothing to compare.
        0 => return,
        all if all == candidates.len() => return,
        _ => preferred.map(|it| it.endpoint.key.uid.clone()).collect(),
    };
    candidates.retain(|it| is_preferred(it) || !pods.contains(&it.endpoint.key.uid));
}

/// Zone and node hints by kube-proxy's rule: they count only if every ready endpoint has them and at least one is
/// meant for this place. Then the others are second choice. Node hints go before zone hints.
fn prefer_near(candidates: &mut [Candidate<'_>], config: &TranslateConfig) {
    if !config.zone_hints {
        return;
    }
    let is_near = |hints: &Hints, by_node: bool| match by_node {
        true => config.node.as_deref().is_some_and(|node| hints.for_nodes.iter().any(|it| *it.name == *node)),
        false => {
            config.zone.as_deref().is_some_and(|zone| hints.for_zones.iter().any(|it| *it.name == *zone))
        }
    };
    let is_hinted = |hints: &Hints, by_node: bool| match by_node {
        true => !hints.for_nodes.is_empty(),
        false => !hints.for_zones.is_empty(),
    };
    let holds = |by_node: bool| {
        let mut ready = candidates.iter().filter(|it| it.endpoint.readiness == Readiness::Ready);
        ready.clone().all(|it| it.hints.is_some_and(|hints| is_hinted(hints, by_node)))
            && ready.any(|it| it.hints.is_some_and(|hints| is_near(hints, by_node)))
    };
    let Some(by_node) = [true, false].into_iter().find(|by_node| holds(*by_node)) else { return };
    for candidate in candidates.iter_mut().filter(|it| it.endpoint.readiness == Readiness::Ready) {
        let near = candidate.hints.is_some_and(|hints| is_near(hints, by_node));
        candidate.endpoint.priority = u8::from(!near);
    }
}

/// The one annotation of an EndpointSlice.
const WEIGHT: &str = "weight";

fn weight(slice: &HeldSlice, findings: &mut Vec<Finding>) -> u16 {
    let keys = slice.annotations.iter().map(|(key, _)| key);
    unknown_keys(&slice.resource, keys, std::iter::once(WEIGHT), findings);
    let Some((_, value)) = slice.annotations.iter().find(|(key, _)| key.strip_prefix(PREFIX) == Some(WEIGHT))
    else {
        return 1;
    };
    value.trim().parse().unwrap_or_else(|_| {
        let why = "it is not a whole number from 0 to 65535, and so the weight is 1";
        findings.push(not_understood(&slice.resource, WEIGHT, value, why, "a whole number from 0 to 65535"));
        1
    })
}

/// The endpoints whose address can be dialled. One finding for each kind of fault, however many have it.
fn usable_endpoints<'a>(
    slice: &'a HeldSlice,
    config: &TranslateConfig,
    findings: &mut Vec<Finding>,
) -> Vec<(IpAddr, &'a HeldEndpoint)> {
    let is_ipv6 = match &*slice.address_type {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            findings.push(unusable_type(&slice.resource, other));
            return Vec::new();
        }
    };
    let mut faults = BTreeMap::<Fault, (usize, usize)>::new();
    let mut usable = Vec::with_capacity(slice.endpoints.len());
    for (position, held) in slice.endpoints.iter().enumerate() {
        match dialled(&held.address, is_ipv6, config.allow_local_addresses) {
            Ok(address) => usable.push((address, held)),
            Err(fault) => faults.entry(fault).or_insert((position, 0)).1 += 1,
        }
    }
    for (fault, (first, count)) in faults {
        findings.push(fault.finding(slice, first, count));
    }
    usable
}

fn unusable_type(resource: &ResourceRef, address_type: &str) -> Finding {
    let message = match address_type {
        "FQDN" => {
            "endpoints of the type FQDN are not dialled, since anybody who answers for the name would be an \
                   endpoint; list IP addresses in a slice of the type IPv4 or IPv6"
                .to_owned()
        }
        other => format!(
            "{:?} is not known, and so the slice is left out; known are IPv4 and IPv6",
            shortened(other)
        ),
    };
    Finding::warning(resource, "addressType", "UnusableAddressType", message)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Missing,
    Unparsable,
    Refused(&'static str),
}

/// The address to dial. Addresses that mean the gateway itself, its own link or many hosts are refused: whoever may
/// write an EndpointSlice could reach the gateway's own ports or a cloud's metadata service by them.
fn dialled(address: &HeldAddress, is_ipv6: bool, allow_loopback: bool) -> Result<IpAddr, Fault> {
    let address = match address {
        HeldAddress::Ip(address) if address.is_ipv6() == is_ipv6 => address.to_canonical(),
        HeldAddress::Ip(_) | HeldAddress::Text(_) => return Err(Fault::Unparsable),
        HeldAddress::Missing => return Err(Fault::Missing),
    };
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let kind = match address {
        _ if address.is_loopback() && !allow_loopback => "a loopback",
        _ if link_local => "a link-local",
        _ if address.is_unspecified() => "an unspecified",
        _ if address.is_multicast() => "a multicast",
        IpAddr::V4(address) if address.is_broadcast() => "a broadcast",
        _ => return Ok(address),
    };
    Err(Fault::Refused(kind))
}

impl Fault {
    fn finding(self, slice: &HeldSlice, first: usize, count: usize) -> Finding {
        let field = format!("endpoints[{first}].addresses");
        let text = match &slice.endpoints[first].address {
            HeldAddress::Ip(address) => address.to_string(),
            HeldAddress::Text(text) => shortened(text).into_owned(),
            HeldAddress::Missing => String::new(),
        };
        let family = &slice.address_type;
        let others = match count {
            1 => String::new(),
            _ => format!(" (and {} more endpoints of this slice)", count - 1),
        };
        let resource = &slice.resource;
        match self {
            Self::Missing => {
                let message = format!("the endpoint has no address and is left out{others}");
                Finding::warning(resource, field, "NoAddress", message)
            }
            Self::Unparsable => {
                let message =
                    format!("{text:?} is not an {family} address; the endpoint is left out{others}");
                Finding::error(resource, format!("{field}[0]"), "UnparsableAddress", message)
            }
            Self::Refused(kind) => {
                let message =
                    format!("{text} is {kind} address and is not dialled; the endpoint is left out{others}");
                Finding::error(resource, format!("{field}[0]"), "RefusedAddress", message)
            }
        }
    }
}

/// The finding for a slice that names no Service.
pub(super) fn without_service(resource: &ResourceRef) -> Finding {
    let label = crate::objects::SERVICE_NAME_LABEL;
    let message =
        format!("the slice names no Service and is left out; set the label {label} to the Service's name");
    Finding::warning(resource, format!("metadata.labels[\"{label}\"]"), "NoServiceLabel", message)
}
