//! 5,000 Services with 100,000 endpoints, as the objects that an API server would send. Nothing of them is held but
//! which endpoint is ready: an object is written and decoded when it is needed, so the memory measured is Portolan's.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use portolan_discovery::objects::{EndpointSlice, Service};
use portolan_model::ClusterId;

const NAMESPACE: &str = "shop";
const PORT: u16 = 80;
const TARGET_PORT: u16 = 8080;
/// What the EndpointSlice controller puts into one slice at most, unless told otherwise.
const SLICE: usize = 100;

/// A set of Services; endpoints are numbered through.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Of each Service, its first endpoint; one more entry behind the last.
    starts: Vec<usize>,
    ready: Vec<bool>,
}

/// One endpoint that became ready or stopped to be.
#[derive(Debug, Clone)]
pub(crate) struct Flip {
    pub(crate) cluster: ClusterId,
    pub(crate) address: SocketAddr,
    pub(crate) ready: bool,
}

impl Fleet {
    /// `services` Services with `endpoints` endpoints, `in_largest` of them in the first Service and the others spread
    /// evenly. All are ready.
    pub(crate) fn new(services: usize, endpoints: usize, in_largest: usize) -> Self {
        let (others, left) = (services - 1, endpoints - in_largest);
        let starts = std::iter::once(0)
            .chain((0..=others).map(|service| in_largest + left * service / others))
            .collect();
        Self { starts, ready: vec![true; endpoints] }
    }

    pub(crate) fn services(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.ready.len()
    }

    /// Every Service, decoded.
    pub(crate) fn all_services(&self) -> Vec<Service> {
        (0..self.services()).map(|service| serde_json::from_str(&service_text(service)).unwrap()).collect()
    }

    /// Every EndpointSlice, decoded.
    pub(crate) fn all_slices(&self) -> Vec<EndpointSlice> {
        (0..self.services())
            .flat_map(|service| {
                let endpoints = self.starts[service]..self.starts[service + 1];
                endpoints.clone().step_by(SLICE).map(move |first| (service, first, endpoints.end))
            })
            .map(|(service, first, end)| self.slice(service, first..end.min(first + SLICE)))
            .collect()
    }

    /// Makes the endpoint ready if it was not, and the other way round. Gives the slice as the watch would.
    pub(crate) fn flip(&mut self, endpoint: usize) -> (Flip, EndpointSlice) {
        self.ready[endpoint] = !self.ready[endpoint];
        let service = self.starts.partition_point(|start| *start <= endpoint) - 1;
        let first = self.starts[service] + (endpoint - self.starts[service]) / SLICE * SLICE;
        let slice = self.slice(service, first..self.starts[service + 1].min(first + SLICE));
        let flip = Flip {
            cluster: ClusterId::new(NAMESPACE, &name(service), PORT),
            address: SocketAddr::new(address(endpoint), TARGET_PORT),
            ready: self.ready[endpoint],
        };
        (flip, slice)
    }

    fn slice(&self, service: usize, endpoints: Range<usize>) -> EndpointSlice {
        serde_json::from_str(&self.slice_text(service, endpoints)).unwrap()
    }

    fn slice_text(&self, service: usize, endpoints: Range<usize>) -> String {
        let name = name(service);
        let mut text = format!(
            r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"name":"{name}-{first:06x}","#,
            first = endpoints.start
        );
        write!(
            text,
            r#""generateName":"{name}-","namespace":"{NAMESPACE}","uid":"7c1de1a2-0000-4000-8000-{first:012x}","resourceVersion":"17","generation":3,"creationTimestamp":"2026-01-05T08:00:00Z","labels":{{"app":"{name}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"{name}"}},"annotations":{{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-05T08:00:00Z"}}}},"addressType":"IPv4","ports":[{{"name":"http","protocol":"TCP","port":{TARGET_PORT}}}],"endpoints":["#,
            first = endpoints.start
        )
        .unwrap();
        for endpoint in endpoints.clone() {
            let comma = if endpoint == endpoints.start { "" } else { "," };
            write!(
                text,
                r#"{comma}{{"addresses":["{address}"],"conditions":{{"ready":{ready},"serving":{ready},"terminating":false}},"targetRef":{{"kind":"Pod","namespace":"{NAMESPACE}","name":"{name}-5d8f7c9b6d-{endpoint:05x}","uid":"0c8f0a5e-1111-4111-8111-{endpoint:012x}"}},"nodeName":"node-{node}","zone":"zone-{zone}"}}"#,
                address = address(endpoint),
                ready = self.ready[endpoint],
                node = endpoint % 500,
                zone = endpoint % 3,
            )
            .unwrap();
        }
        text.push_str("]}");
        text
    }
}

fn name(service: usize) -> String {
    format!("service-{service:04}")
}

fn address(endpoint: usize) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + u32::try_from(endpoint).unwrap()).into()
}

fn service_text(service: usize) -> String {
    let name = name(service);
    format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{NAMESPACE}","uid":"5a0de1a2-2222-4222-8222-{service:012x}","resourceVersion":"11","creationTimestamp":"2026-01-05T07:59:00Z","labels":{{"app":"{name}"}},"annotations":{{"portolan.dev/expose":"true"}}}},"spec":{{"ports":[{{"name":"http","protocol":"TCP","port":{PORT},"targetPort":"web"}}],"selector":{{"app":"{name}"}},"clusterIP":"10.96.0.1","type":"ClusterIP","sessionAffinity":"None","ipFamilies":["IPv4"]}},"status":{{"loadBalancer":{{}}}}}}"#
    )
}
