//! Tables of manifests and what they translate to.

use portolan_model::{
    Affinity, Balancing, Contribution, Filter, HealthCheck, PathMatch, PortMatch, Probe, Readiness,
    ResourceRef, Role,
};
use std::time::Duration;

use super::*;
use crate::objects::{EndpointSlice, Namespace, Service};

/// An index that has seen these manifests (documents of Services, EndpointSlices and Namespaces).
fn index(manifests: &str) -> Index {
    let mut index = Index::new();
    for document in serde_saphyr::from_multiple::<serde_json::Value>(manifests).unwrap() {
        index.apply(event(document));
    }
    index
}

fn event(document: serde_json::Value) -> ObjectEvent {
    match document["kind"].as_str().unwrap() {
        "Service" => ObjectEvent::Service(serde_json::from_value::<Service>(document).unwrap()),
        "EndpointSlice" => {
            ObjectEvent::EndpointSlice(serde_json::from_value::<EndpointSlice>(document).unwrap())
        }
        "Namespace" => ObjectEvent::Namespace(serde_json::from_value::<Namespace>(document).unwrap()),
        other => panic!("{other}"),
    }
}

fn config() -> TranslateConfig {
    TranslateConfig::kubernetes("shop")
}

fn orders() -> ResourceRef {
    ResourceRef::new("Service", "shop", "orders")
}

fn service(annotations: &str, spec: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{name: orders, namespace: shop, annotations: {{portolan.dev/expose: 'true', \
         {annotations}}}}}, spec: {{selector: {{a: b}}, {spec}}}}}"
    )
}

fn slice(name: &str, rest: &str) -> String {
    format!(
        "\n---\n{{kind: EndpointSlice, metadata: {{name: {name}, namespace: shop, \
         labels: {{kubernetes.io/service-name: orders}}}}, addressType: IPv4, {rest}}}"
    )
}

fn plain() -> String {
    service("", "ports: [{port: 80}]")
}

fn plain_ports() -> &'static str {
    "ports: [{port: 8080}]"
}

fn said(manifests: &str) -> Contribution {
    said_with(manifests, &config())
}

fn said_with(manifests: &str, config: &TranslateConfig) -> Contribution {
    index(manifests).contribution(&orders(), config).unwrap_or_default()
}

/// Each route as `id | roles | hosts | path | filters -> cluster`.
fn routes(said: &Contribution) -> Vec<String> {
    let render = |route: &Arc<portolan_model::Route>| {
        let roles = match (route.roles.contains(Role::Edge), route.roles.contains(Role::Cluster)) {
            (true, true) => "all",
            (false, true) => "cluster",
            (true, false) => "edge",
            _ => "?",
        };
        let hosts = route.hosts.iter().map(|it| match it.port {
            PortMatch::Any => it.host.to_string(),
            PortMatch::Absent => format!("{}!", it.host),
            PortMatch::Exact(port) => format!("{}:{port}", it.host),
        });
        let hosts = hosts.collect::<Vec<_>>().join(" ");
        let rule = &route.rules[0];
        let path = match rule.matches.first().map(|it| &it.path) {
            None => "*".to_owned(),
            Some(PathMatch::Prefix(prefix)) => format!("{prefix}/**"),
            Some(other) => format!("{other:?}"),
        };
        let filters = rule.filters.iter().map(|filter| match filter {
            Filter::StripPrefix(prefix) => format!(" strip {prefix}"),
            Filter::RewriteHost(host) => format!(" host {host}"),
        });
        let filters = filters.collect::<String>();
        format!("{roles} | {hosts} | {path} |{filters} -> {}", rule.backends[0].cluster)
    };
    said.routes.iter().map(render).collect()
}

fn edge_routes(said: &Contribution) -> Vec<String> {
    routes(said).into_iter().filter(|route| !route.starts_with("cluster")).collect()
}

fn reasons(said: &Contribution) -> Vec<&str> {
    said.findings.iter().map(|it| &*it.reason).collect()
}

/// The endpoints of the cluster as `address` with `(draining)`, `(unready)`, `*weight`, `^priority`, `@uid`.
fn endpoints(said: &Contribution, cluster: &str) -> Vec<String> {
    let cluster = said.clusters.iter().find(|it| it.id.as_str() == cluster).expect("the cluster is there");
    let render = |it: &portolan_model::Endpoint| {
        let mut text = it.key.address.to_string();
        text += match it.readiness {
            Readiness::Ready => "",
            Readiness::Draining => " draining",
            Readiness::NotReady => " unready",
        };
        if it.weight != 1 {
            text += &format!(" *{}", it.weight);
        }
        if it.priority != 0 {
            text += &format!(" ^{}", it.priority);
        }
        if let Some(uid) = &it.key.uid {
            text += &format!(" @{uid}");
        }
        text
    };
    cluster.endpoints.iter().map(render).collect()
}

// === Which Services ===

#[test]
fn who_is_exposed() {
    let manifests = |annotation: &str, namespace: &str, name: &str, labels: &str, namespace_label: &str| {
        format!(
            "{{kind: Namespace, metadata: {{name: {namespace}, labels: {{{namespace_label}}}}}}}\n---\n\
             {{kind: Service, metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}, \
             annotations: {{{annotation}}}}}, spec: {{ports: [{{port: 80}}], selector: {{a: b}}}}}}"
        )
    };
    let (yes, no) = ("portolan.dev/expose: 'true'", "portolan.dev/expose: 'false'");
    let own = "app.kubernetes.io/name: portolan";
    // annotation, namespace, name, labels, label of the namespace, exposed by annotation, with --expose=all
    let table = [
        ("", "shop", "a", "", "", false, true),
        (yes, "shop", "a", "", "", true, true),
        (no, "shop", "a", "", yes, false, false),
        ("", "shop", "a", "", yes, true, true),
        ("", "shop", "a", "", no, false, false),
        ("portolan.dev/expose: 'yes'", "shop", "a", "", yes, false, false),
        ("", "shop", "a", "", "portolan.dev/expose: 'yes'", false, true),
        ("", "default", "kubernetes", "", "", false, false),
        ("", "other", "kubernetes", "", "", false, true),
        ("", "kube-system", "dns", "", "", false, false),
        (yes, "kube-system", "dns", "", "", true, true),
        (yes, "shop", "portolan", own, yes, false, false),
        ("", "shop", "portolan", own, yes, false, false),
    ];
    for (annotation, namespace, name, labels, label, annotated, all) in table {
        let manifests = manifests(annotation, namespace, name, labels, label);
        let key = ResourceRef::new("Service", namespace, name);
        for (expose, expected) in [(Expose::Annotated, annotated), (Expose::All, all)] {
            let said = index(&manifests).contribution(&key, &TranslateConfig { expose, ..config() });
            let has_routes = said.is_some_and(|said| !said.routes.is_empty());
            assert_eq!(has_routes, expected, "{expose:?}: {manifests}");
        }
    }
}

#[test]
fn a_namespace_label_that_is_not_understood_is_a_finding_on_the_namespace() {
    let index = index("{kind: Namespace, metadata: {name: shop, labels: {portolan.dev/expose: 'yes'}}}");
    let key = ResourceRef::new("Namespace", "", "shop");
    assert_eq!(index.keys(), std::slice::from_ref(&key));
    let said = index.contribution(&key, &config()).unwrap();
    assert_eq!(reasons(&said), ["InvalidLabel"]);
    assert_eq!(said.findings[0].field, "metadata.labels[\"portolan.dev/expose\"]");
}

#[test]
fn annotations_without_exposure_are_a_warning() {
    let text =
        "{kind: Service, metadata: {name: orders, namespace: shop, annotations: {portolan.dev/path: /x}}}";
    assert_eq!(reasons(&said(text)), ["NotExposed"]);
}

#[test]
fn external_names_and_names_that_are_no_label_are_refused() {
    assert_eq!(
        reasons(&said(&service("", "type: ExternalName, externalName: evil.example"))),
        ["ExternalName"]
    );
    let odd = plain().replace("name: orders", "name: 'a/../b'");
    let said = index(&odd).contribution(&ResourceRef::new("Service", "shop", "a/../b"), &config()).unwrap();
    assert_eq!(reasons(&said), ["InvalidName"]);
    assert!(said.routes.is_empty() && said.clusters.is_empty());
}

// === Routes ===

#[test]
fn a_plain_service_of_the_default_namespace() {
    let said =
        said(&(plain() + &slice("s", &format!("{}, endpoints: [{{addresses: [10.0.0.1]}}]", plain_ports()))));
    assert_eq!(
        routes(&said),
        [
            "all |  | /orders/** | strip /orders -> shop/orders:80",
            "cluster | orders! orders:80 orders.shop! orders.shop:80 orders.shop.svc! orders.shop.svc:80 \
             orders.shop.svc.cluster.local! orders.shop.svc.cluster.local:80 | * | -> shop/orders:80",
        ]
    );
    assert_eq!(endpoints(&said, "shop/orders:80"), ["10.0.0.1:8080"]);
    assert!(said.findings.is_empty(), "{:?}", said.findings);
    assert!(Arc::ptr_eq(&said.clusters[0].policy, &said_policy(&said)), "one policy");
}

fn said_policy(said: &Contribution) -> Arc<ClusterPolicy> {
    said.clusters[0].policy.clone()
}

#[test]
fn a_service_of_another_namespace_carries_its_namespace() {
    let config =
        TranslateConfig { cluster_domain: "k8s.example".into(), ..TranslateConfig::kubernetes("default") };
    assert_eq!(
        routes(&said_with(&plain(), &config)),
        [
            "all |  | /shop/orders/** | strip /shop/orders -> shop/orders:80",
            "cluster | orders.shop! orders.shop:80 orders.shop.svc! orders.shop.svc:80 \
             orders.shop.svc.k8s.example! orders.shop.svc.k8s.example:80 | * | -> shop/orders:80",
        ]
    );
}

#[test]
fn paths_and_hosts_by_annotation() {
    let table: &[(&str, &[&str])] = &[
        ("portolan.dev/path: /api", &["all |  | /api/** | -> shop/orders:80"]),
        ("portolan.dev/path: /api/", &["all |  | /api/** | -> shop/orders:80"]),
        (
            "portolan.dev/path: /api/**, portolan.dev/strip-prefix: 'true'",
            &["all |  | /api/** | strip /api -> shop/orders:80"],
        ),
        ("portolan.dev/path: /a%20b/%7Ec", &["all |  | /a%20b/%7Ec/** | -> shop/orders:80"]),
        ("portolan.dev/path: /**", &["all |  | * | -> shop/orders:80"]),
        ("portolan.dev/path: /", &["all |  | * | -> shop/orders:80"]),
        ("portolan.dev/strip-prefix: 'false'", &["all |  | /orders/** | -> shop/orders:80"]),
        ("portolan.dev/host: Shop.example.com", &["all | shop.example.com | * | -> shop/orders:80"]),
        (
            "portolan.dev/host: 'a.b.example, *.b.example, a.b.example', portolan.dev/path: /v1",
            &[
                "all | a.b.example | /v1/** | -> shop/orders:80",
                "all | *.b.example | /v1/** | -> shop/orders:80",
            ],
        ),
        (
            "portolan.dev/upstream-host: 'inner.example:8080'",
            &["all |  | /orders/** | strip /orders host inner.example:8080 -> shop/orders:80"],
        ),
    ];
    for (annotations, expected) in table {
        let said = said(&service(annotations, "ports: [{port: 80}]"));
        assert_eq!(edge_routes(&said), *expected, "{annotations}");
        assert!(said.findings.is_empty(), "{annotations}: {:?}", said.findings);
    }
}

#[test]
fn what_is_more_specific_ranks_lower() {
    let rank = |annotations: &str| {
        let said = said(&service(annotations, "ports: [{port: 80}]"));
        (said.routes[0].rules[0].rank.clone(), said.routes[1].rules[0].rank.clone())
    };
    let (exact_host, own_name) = rank("portolan.dev/host: a.example.com");
    let (exact_host_and_path, _) = rank("portolan.dev/host: a.example.com, portolan.dev/path: /a");
    let (long_wildcard, _) = rank("portolan.dev/host: '*.example.com', portolan.dev/path: /a/long/path");
    let (wildcard, _) = rank("portolan.dev/host: '*.com'");
    let (long_path, _) = rank("portolan.dev/path: /a/b");
    let (path, _) = rank("portolan.dev/path: /a");
    let order = [own_name, exact_host_and_path, exact_host, long_wildcard, wildcard, long_path, path];
    assert!(order.is_sorted(), "{order:#?}");
}

// === Ports ===

#[test]
fn the_port_that_routes_lead_to() {
    let two = "ports: [{name: admin, port: 9000}, {name: web, port: 8080}";
    // annotations, spec, the cluster of the edge route, reasons
    let table: &[(&str, &str, Option<&str>, &[&str])] = &[
        ("", "ports: [{port: 80}]", Some("shop/orders:80"), &[]),
        ("", "ports: [{name: admin, port: 9}, {name: http, port: 80}]", Some("shop/orders:80"), &[]),
        (
            "",
            "ports: [{name: a, port: 9}, {name: b, port: 80, appProtocol: http}]",
            Some("shop/orders:80"),
            &[],
        ),
        (
            "",
            "ports: [{name: dns, port: 53, protocol: UDP}, {name: b, port: 80}]",
            Some("shop/orders:80"),
            &[],
        ),
        (
            "",
            "ports: [{name: http, port: 53, protocol: UDP}, {name: b, port: 80}]",
            Some("shop/orders:80"),
            &[],
        ),
        ("", &format!("{two}]"), None, &["AmbiguousPort"]),
        ("", "ports: [{name: dns, port: 53, protocol: UDP}]", None, &["NoPort"]),
        ("", "ports: null", None, &["NoPort"]),
        ("portolan.dev/port: web", &format!("{two}]"), Some("shop/orders:8080"), &[]),
        ("portolan.dev/port: '9000'", &format!("{two}]"), Some("shop/orders:9000"), &[]),
        ("portolan.dev/port: nope", &format!("{two}]"), None, &["UnknownPort"]),
        ("portolan.dev/port: '81'", "ports: [{port: 80}]", None, &["UnknownPort"]),
        ("portolan.dev/port: '70000'", "ports: [{port: 80}]", None, &["InvalidAnnotation"]),
        ("", "ports: [{port: 80}, {port: 99999}]", Some("shop/orders:80"), &["InvalidPort"]),
    ];
    for (annotations, spec, cluster, expected) in table {
        let said = said(&service(annotations, spec));
        let edge = said.routes.iter().find(|route| route.roles.contains(Role::Edge));
        let backend = edge.map(|route| route.rules[0].backends[0].cluster.to_string());
        assert_eq!(backend.as_deref(), *cluster, "{annotations} {spec}");
        assert_eq!(reasons(&said), *expected, "{annotations} {spec}");
    }
}

#[test]
fn every_tcp_port_has_a_cluster_and_an_authority_whatever_is_chosen() {
    let said = said(&service(
        "",
        "ports: [{name: a, port: 1}, {name: b, port: 2}, {name: c, port: 3, protocol: UDP}]",
    ));
    let clusters: Vec<_> = said.clusters.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(clusters, ["shop/orders:1", "shop/orders:2"]);
    let routes = routes(&said);
    assert_eq!(routes.len(), 2);
    assert!(routes[1].starts_with("cluster | orders:2 orders.shop:2 "), "{routes:?}");
    assert!(!routes.concat().contains('!'), "no port is chosen: {routes:?}");
}

#[test]
fn a_service_port_is_found_by_name_and_has_the_slices_own_number() {
    let manifests = service(
        "",
        "ports: [{name: http, port: 80, targetPort: 1}, {name: admin, port: 8080, targetPort: 2}]",
    ) + &slice(
        "a",
        "ports: [{name: http, port: 8080}, {name: admin, port: 80}], endpoints: [{addresses: [10.0.0.1]}]",
    ) + &slice(
        "b",
        "ports: [{name: http, port: 9090}], endpoints: [{addresses: [10.0.0.2]}]",
    ) + &slice("c", "ports: [{port: 80}], endpoints: [{addresses: [10.0.0.3]}]")
        + &slice("d", "ports: [{name: http, port: 80, protocol: UDP}], endpoints: [{addresses: [10.0.0.4]}]")
        + &slice("e", "ports: [{name: http}], endpoints: [{addresses: [10.0.0.5]}]")
        + &slice("f", "ports: null, endpoints: [{addresses: [10.0.0.6]}]");
    let said = said(&manifests);
    assert_eq!(endpoints(&said, "shop/orders:80"), ["10.0.0.1:8080", "10.0.0.2:9090"]);
    assert_eq!(endpoints(&said, "shop/orders:8080"), ["10.0.0.1:80"]);
    assert!(said.findings.is_empty(), "{:?}", said.findings);
}

#[test]
fn a_port_name_that_exists_nowhere_is_a_finding() {
    let manifests = service("", "ports: [{name: http, port: 80}]")
        + &slice("a", "ports: [{name: web, port: 8080}], endpoints: [{addresses: [10.0.0.1]}]");
    let said = said(&manifests);
    assert_eq!(reasons(&said), ["UnservedPort"]);
    assert_eq!(said.findings[0].field, "spec.ports[0].name");
    assert!(endpoints(&said, "shop/orders:80").is_empty());
}

// === Endpoints ===

#[test]
fn conditions_and_what_their_absence_means() {
    let table = [
        ("", ""),
        ("conditions: null", ""),
        ("conditions: {ready: null}", ""),
        ("conditions: {ready: true}", ""),
        ("conditions: {ready: false}", " unready"),
        ("conditions: {ready: false, terminating: true}", " unready"),
        ("conditions: {ready: false, serving: true}", " unready"),
        ("conditions: {ready: false, serving: true, terminating: true}", " draining"),
        ("conditions: {ready: false, serving: false, terminating: true}", " unready"),
        // publishNotReadyAddresses: the slice says ready of a pod that is not.
        ("conditions: {ready: true, serving: false, terminating: true}", ""),
    ];
    for (conditions, expected) in table {
        let endpoint = format!("{}, endpoints: [{{addresses: [10.0.0.1], {conditions}}}]", plain_ports());
        let said = said(&(plain() + &slice("s", &endpoint)));
        assert_eq!(endpoints(&said, "shop/orders:80"), [format!("10.0.0.1:8080{expected}")], "{conditions}");
    }
}

#[test]
fn an_address_in_two_slices_is_one_endpoint_and_the_better_copy_counts() {
    let unready = "ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}]";
    let ready = "ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1, 10.9.9.9], targetRef: {uid: u}}]";
    for (a, b) in [(unready, ready), (ready, unready)] {
        let said = said(&(plain() + &slice("a", a) + &slice("b", b)));
        assert_eq!(
            endpoints(&said, "shop/orders:80"),
            ["10.0.0.1:8080 @u"],
            "only the first address has a meaning"
        );
    }
}

#[test]
fn a_dual_stack_pod_is_one_endpoint_in_the_preferred_family() {
    let v4 = |uid: &str| format!("ports: [{{port: 8080}}], endpoints: [{{addresses: [10.0.0.1]{uid}}}]");
    let v6 = |uid: &str| {
        slice("b", &format!("ports: [{{port: 8080}}], endpoints: [{{addresses: ['fd00::1']{uid}}}]"))
            .replace("IPv4", "IPv6")
    };
    let both = |families: &str, uid: &str| {
        let service = service("", &format!("ipFamilies: [{families}], ports: [{{port: 80}}]"));
        endpoints(&said(&(service + &slice("a", &v4(uid)) + &v6(uid))), "shop/orders:80")
    };
    let uid = ", targetRef: {uid: u}";
    assert_eq!(both("IPv4, IPv6", uid), ["10.0.0.1:8080 @u"]);
    assert_eq!(both("IPv6, IPv4", uid), ["[fd00::1]:8080 @u"]);
    assert_eq!(both("", uid), ["10.0.0.1:8080 @u"]);
    assert_eq!(both("IPv4, IPv6", ""), ["10.0.0.1:8080"], "slices made by hand");
    let only_v6 = said(&(service("", "ipFamilies: [IPv4, IPv6], ports: [{port: 80}]") + &v6(uid)));
    assert_eq!(endpoints(&only_v6, "shop/orders:80"), ["[fd00::1]:8080 @u"], "an IPv6-only pod counts");
}

#[test]
fn addresses_that_are_not_dialled() {
    // address type, address, reason in a cluster, reason from files
    let table = [
        ("IPv4", "10.0.0.1", None, None),
        ("IPv4", "127.0.0.1", Some("RefusedAddress"), None),
        ("IPv6", "::1", Some("RefusedAddress"), None),
        ("IPv6", "::ffff:127.0.0.1", Some("RefusedAddress"), None),
        ("IPv4", "169.254.169.254", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv6", "fe80::1", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv6", "::ffff:169.254.169.254", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv4", "0.0.0.0", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv6", "::", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv4", "224.0.0.1", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv4", "255.255.255.255", Some("RefusedAddress"), Some("RefusedAddress")),
        ("IPv4", "fd00::1", Some("UnparsableAddress"), Some("UnparsableAddress")),
        ("IPv4", "10.0.0", Some("UnparsableAddress"), Some("UnparsableAddress")),
        ("IPv4", "localhost", Some("UnparsableAddress"), Some("UnparsableAddress")),
        ("FQDN", "orders.example.com", Some("UnusableAddressType"), Some("UnusableAddressType")),
        ("IPv8", "1", Some("UnusableAddressType"), Some("UnusableAddressType")),
    ];
    let files = TranslateConfig::files("shop");
    for (address_type, address, in_cluster, in_files) in table {
        let slice = slice("s", &format!("ports: [{{port: 1}}], endpoints: [{{addresses: ['{address}']}}]"));
        let manifests =
            plain() + &slice.replace("addressType: IPv4", &format!("addressType: {address_type}"));
        for (config, expected) in [(&config(), in_cluster), (&files, in_files)] {
            let said = said_with(&manifests, config);
            assert_eq!(reasons(&said), Vec::from_iter(expected), "{address}");
            assert_eq!(endpoints(&said, "shop/orders:80").is_empty(), expected.is_some(), "{address}");
            for finding in &said.findings {
                assert_eq!(finding.resource.to_string(), "EndpointSlice shop/s", "the slice is at fault");
            }
        }
    }
}

#[test]
fn one_odd_endpoint_hurts_no_other_and_many_are_one_finding() {
    let manifests = plain()
        + &slice(
            "s",
            "ports: [{port: 1}], endpoints: [{addresses: ['x']}, {addresses: [10.0.0.1]}, {addresses: ['z']}, \
             {addresses: []}, {}]",
        );
    let said = said(&manifests);
    assert_eq!(endpoints(&said, "shop/orders:80"), ["10.0.0.1:1"]);
    assert_eq!(reasons(&said), ["NoAddress", "UnparsableAddress"]);
    let unparsable = &said.findings[1];
    assert_eq!(unparsable.field, "endpoints[0].addresses[0]");
    assert!(unparsable.message.contains("\"x\"") && unparsable.message.contains("1 more"), "{unparsable}");
}

#[test]
fn slices_weigh_their_endpoints() {
    let weighted = |weight: &str| {
        let slice = slice("s", "ports: [{port: 1}], endpoints: [{addresses: [10.0.0.1]}]");
        said(&(plain() + &slice.replace("labels:", &format!("annotations: {{{weight}}}, labels:"))))
    };
    assert_eq!(endpoints(&weighted("portolan.dev/weight: '7'"), "shop/orders:80"), ["10.0.0.1:1 *7"]);
    assert_eq!(endpoints(&weighted("portolan.dev/weight: '0'"), "shop/orders:80"), ["10.0.0.1:1 *0"]);
    let faulty = weighted("portolan.dev/weight: heavy");
    assert_eq!(endpoints(&faulty, "shop/orders:80"), ["10.0.0.1:1"]);
    assert_eq!(reasons(&faulty), ["InvalidAnnotation"]);
    assert_eq!(reasons(&weighted("portolan.dev/wieght: '7'")), ["UnknownAnnotation"]);
}

#[test]
fn slices_without_the_label_are_ignored_with_a_finding() {
    let index = index(
        "{kind: EndpointSlice, metadata: {name: lost, namespace: shop}, addressType: IPv4, \
         endpoints: [{addresses: [10.0.0.1]}]}",
    );
    let key = ResourceRef::new("EndpointSlice", "shop", "lost");
    assert_eq!(index.keys(), std::slice::from_ref(&key));
    let said = index.contribution(&key, &config()).unwrap();
    assert_eq!(reasons(&said), ["NoServiceLabel"]);
}

#[test]
fn a_service_without_slices() {
    let by_hand = plain().replace("selector: {a: b}", "selector: null");
    assert_eq!(reasons(&said(&by_hand)), ["NoEndpointSlices"]);
    assert!(reasons(&said(&plain())).is_empty(), "a controller will write them");
    assert_eq!(reasons(&said_with(&plain(), &TranslateConfig::files("shop"))), ["NoEndpointSlices"]);
    assert!(endpoints(&said(&plain()), "shop/orders:80").is_empty());
}

#[test]
fn hints_count_only_when_every_ready_endpoint_has_them_and_one_is_for_us() {
    let hinted = |zones: [&str; 3], nodes: [&str; 3], last: &str| {
        let one = |i: usize| {
            let list = |name: &str| if name.is_empty() { String::new() } else { format!("{{name: {name}}}") };
            let last = if i == 2 { last } else { "" };
            format!(
                "{{addresses: [10.0.0.{i}], hints: {{forZones: [{}], forNodes: [{}]}}{last}}}",
                list(zones[i]),
                list(nodes[i])
            )
        };
        let all = (0..3).map(one).collect::<Vec<_>>().join(", ");
        plain() + &slice("s", &format!("ports: [{{port: 1}}], endpoints: [{all}]"))
    };
    let config = TranslateConfig { zone: Some("a".into()), node: Some("n1".into()), ..config() };
    let priorities = |manifests: &str, config: &TranslateConfig| -> Vec<u8> {
        said_with(manifests, config).clusters[0].endpoints.iter().map(|it| it.priority).collect()
    };
    let none = ["", "", ""];
    let unready = ", conditions: {ready: false}";
    assert_eq!(priorities(&hinted(["a", "b", "a"], none, ""), &config), [0, 1, 0]);
    assert_eq!(priorities(&hinted(["a", "b", ""], none, ""), &config), [0, 0, 0], "one has no hint");
    assert_eq!(priorities(&hinted(["a", "b", ""], none, unready), &config), [0, 1, 0], "but it is not ready");
    assert_eq!(priorities(&hinted(["b", "b", "c"], none, ""), &config), [0, 0, 0], "none is for us");
    assert_eq!(
        priorities(&hinted(["b", "a", "a"], ["n1", "n2", "n3"], ""), &config),
        [0, 1, 1],
        "nodes first"
    );
    let off = TranslateConfig { zone_hints: false, ..config };
    assert_eq!(priorities(&hinted(["a", "b", "a"], none, ""), &off), [0, 0, 0]);
}

// === Policy ===

#[test]
fn policies_by_annotation() {
    let policy = |annotations: &str| {
        let said = said(&service(annotations, "ports: [{port: 80}]"));
        assert!(said.findings.is_empty(), "{annotations}: {:?}", said.findings);
        ClusterPolicy::clone(&said.clusters[0].policy)
    };
    assert_eq!(policy(""), ClusterPolicy::default());
    assert_eq!(policy("portolan.dev/balance: least-connection").balancing, Balancing::LeastConnection);
    assert_eq!(
        policy("portolan.dev/affinity: cookie").affinity,
        Affinity::Cookie("portolan-shop-orders".into())
    );
    assert_eq!(policy("portolan.dev/affinity: client-ip").affinity, Affinity::ClientIp);
    assert_eq!(policy("portolan.dev/affinity: 'header:X-User'").affinity, Affinity::Header("x-user".into()));
    let check = policy(
        "portolan.dev/health-interval: 4s, portolan.dev/health-path: '/up?x=1', portolan.dev/healthy-threshold: '1'",
    );
    assert_eq!(
        check.health_check,
        Some(HealthCheck {
            probe: Probe::Http("/up?x=1".into()),
            interval: Duration::from_secs(4),
            timeout: Duration::from_secs(2),
            healthy_threshold: 1,
            unhealthy_threshold: 3,
        })
    );
    assert_eq!(policy("portolan.dev/health: tcp").health_check.unwrap().probe, Probe::Tcp);
    let often = "portolan.dev/health: tcp, portolan.dev/health-interval: 1s";
    assert_eq!(policy(often).health_check.unwrap().timeout, Duration::from_millis(500));
    let slow = format!("portolan.dev/health-timeout: 900ms, {often}");
    assert_eq!(policy(&slow).health_check.unwrap().timeout, Duration::from_millis(900));
    let timeouts = policy(
        "portolan.dev/connect-timeout: 250ms, portolan.dev/response-timeout: 1m30s, portolan.dev/request-timeout: 2m, \
         portolan.dev/stream-idle-timeout: 1h",
    )
    .timeouts;
    assert_eq!(timeouts.connect, Duration::from_millis(250));
    assert_eq!(timeouts.response_header, Duration::from_secs(90));
    assert_eq!(timeouts.request, Some(Duration::from_secs(120)));
    assert_eq!(timeouts.stream_idle, Duration::from_secs(3600));
    let rest = policy(
        "portolan.dev/retries: '0', portolan.dev/slow-start: 30s, portolan.dev/eject-on-500: 'true', \
         portolan.dev/outlier-failures: '9', portolan.dev/outlier-ejection: 1s, portolan.dev/outlier-max-percent: '20'",
    );
    assert_eq!(rest.retry.max_retries, 0);
    assert_eq!(rest.slow_start, Some(Duration::from_secs(30)));
    assert!(rest.outlier_detection.eject_on_500);
    assert_eq!(rest.outlier_detection.consecutive_failures, 9);
    assert_eq!(rest.outlier_detection.base_ejection, Duration::from_secs(1));
    assert_eq!(rest.outlier_detection.max_ejected_percent, 20);
}

#[test]
fn session_affinity_of_the_service_holds_unless_an_annotation_says_otherwise() {
    let affinity = |annotations: &str| {
        let said = said(&service(annotations, "sessionAffinity: ClientIP, ports: [{port: 80}]"));
        said.clusters[0].policy.affinity.clone()
    };
    assert_eq!(affinity(""), Affinity::ClientIp);
    assert_eq!(affinity("portolan.dev/affinity: none"), Affinity::None);
    assert_eq!(affinity("portolan.dev/affinity: 'header:a'"), Affinity::Header("a".into()));
}

#[test]
fn a_value_that_is_not_understood_names_the_field_and_changes_nothing() {
    let table = [
        ("balance", "random"),
        ("affinity", "ip"),
        ("affinity", "'header:'"),
        ("affinity", "'header:a b'"),
        ("strip-prefix", "'yes'"),
        ("health", "udp"),
        ("health-path", "up"),
        ("health-interval", "3s"), // without health-path
        ("connect-timeout", "'10'"),
        ("connect-timeout", "0s"),
        ("connect-timeout", "'-1s'"),
        ("response-timeout", "off"),
        ("request-timeout", "99h"),
        ("retries", "'3'"),
        ("slow-start", "x"),
        ("eject-on-500", "'1'"),
        ("outlier-failures", "many"),
        ("outlier-max-percent", "'101'"),
        ("upstream-host", "'a b'"),
        ("upstream-host", "'*.example.com'"),
        ("upstream-host", "'a:http'"),
    ];
    for (name, value) in table {
        let said = said(&service(&format!("portolan.dev/{name}: {value}"), "ports: [{port: 80}]"));
        assert_eq!(reasons(&said), ["InvalidAnnotation"], "{name}: {value}");
        assert_eq!(said.findings[0].field, format!("metadata.annotations[\"portolan.dev/{name}\"]"));
        assert_eq!(*said.clusters[0].policy, ClusterPolicy::default(), "{name}: {value}");
        assert_eq!(
            edge_routes(&said),
            ["all |  | /orders/** | strip /orders -> shop/orders:80"],
            "{name}: {value}"
        );
    }
}

#[test]
fn a_path_or_host_that_is_not_understood_opens_no_other() {
    let table = [
        "path: api",
        "path: ''",
        "path: '/a/*'",
        "path: '/a/**/b'",
        "path: '/a//b'",
        "path: '/a/../b'",
        "path: '/a?b'",
        "path: '/a b'",
        "path: '//'",
        "path: '//**'",
        "path: '/a**'",
        "path: '/a%2Fb'",
        "path: '/a%5cb'",
        "path: '/a%zz'",
        "path: '/a%2'",
        "path: '/a%00'",
        "path: '/a/%2E./b'",
        "path: '/a/..;x/b'",
        "host: ''",
        "host: 'a b'",
        "host: 'http://a'",
        "host: 'a:80'",
        "host: '*'",
    ];
    for annotation in table {
        let said = said(&service(&format!("portolan.dev/{annotation}"), "ports: [{port: 80}]"));
        assert_eq!(reasons(&said), ["InvalidAnnotation"], "{annotation}");
        assert!(edge_routes(&said).is_empty(), "{annotation}: {:?}", edge_routes(&said));
        assert_eq!(routes(&said).len(), 1, "its own names still work");
    }
    let partly = said(&service("portolan.dev/host: 'a.b.example, b c'", "ports: [{port: 80}]"));
    assert_eq!(reasons(&partly), ["InvalidAnnotation"]);
    assert_eq!(edge_routes(&partly), ["all | a.b.example | * | -> shop/orders:80"]);
}

#[test]
fn nobody_can_claim_a_name_inside_the_kubernetes_cluster() {
    for host in ["other.shop.svc", "other.shop.svc.cluster.local", "'*.svc'", "x.cluster.local"] {
        let said = said(&service(&format!("portolan.dev/host: {host}"), "ports: [{port: 80}]"));
        assert_eq!(reasons(&said), ["ReservedHost"], "{host}");
        assert!(edge_routes(&said).is_empty(), "{host}");
    }
}

#[test]
fn a_host_that_could_be_anothers_own_name_is_served_at_edge_listeners_only() {
    // A name, a name with its namespace, wildcards above such, and addresses.
    for host in [
        "orders",
        "kubernetes.default",
        "payments.billing",
        "example.com",
        "'*.billing'",
        "'*.com'",
        "10.96.0.1",
        "'[fd00::1]'",
    ] {
        let said = said(&service(&format!("portolan.dev/host: {host}"), "ports: [{port: 80}]"));
        let host = host.trim_matches('\'');
        assert_eq!(reasons(&said), ["EdgeOnlyHost"], "{host}");
        assert_eq!(said.findings[0].severity, portolan_model::Severity::Warning);
        assert!(said.findings[0].message.starts_with(host), "{}", said.findings[0]);
        assert_eq!(edge_routes(&said), [format!("edge | {host} | * | -> shop/orders:80")]);
    }
    // A wildcard reaches as deep as the cluster domain is.
    let config = TranslateConfig { cluster_domain: "k8s.example.com".into(), ..config() };
    for (host, roles) in [
        ("*.example.com", "edge"),
        ("*.shop.example.com", "all"),
        ("pay.example.com", "all"),
        ("*.net", "edge"),
    ] {
        let said =
            said_with(&service(&format!("portolan.dev/host: '{host}'"), "ports: [{port: 80}]"), &config);
        assert_eq!(edge_routes(&said), [format!("{roles} | {host} | * | -> shop/orders:80")]);
    }
}

#[test]
fn an_unknown_annotation_is_told_with_the_nearest_one() {
    let said = said(&service(
        "portolan.dev/balence: round-robin, portolan.dev/zzzzzzzzzzzz: x",
        "ports: [{port: 80}]",
    ));
    assert_eq!(reasons(&said), ["UnknownAnnotation", "UnknownAnnotation"]);
    assert!(said.findings[0].message.contains("portolan.dev/balance"), "{}", said.findings[0]);
    assert!(!said.findings[1].message.contains("did you mean"), "{}", said.findings[1]);
}

#[test]
fn headless_services_are_routed_like_others() {
    let manifests = service("", "clusterIP: None, ports: [{name: web, port: 80, targetPort: web}]")
        + &slice(
            "a",
            "ports: [{name: web, port: 3000}], endpoints: [{addresses: [10.0.0.1], hostname: orders-0}]",
        );
    let said = said(&manifests);
    assert_eq!(endpoints(&said, "shop/orders:80"), ["10.0.0.1:3000"]);
    assert_eq!(edge_routes(&said).len(), 1);
}

#[test]
fn the_documentation_has_every_annotation_and_no_other() {
    let text = include_str!("../../../docs/annotations.md");
    let mut documented: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("### "))
        .flat_map(|line| line.split('`').filter_map(|part| part.strip_prefix("portolan.dev/")))
        .collect();
    documented.sort_unstable();
    let mut known: Vec<_> = SERVICE_ANNOTATIONS.iter().map(|annotation| annotation.name).collect();
    // Of EndpointSlices, and as the label of a Namespace.
    known.extend(["weight", "expose"]);
    known.sort_unstable();
    assert_eq!(documented, known);
}

proptest::proptest! {
    #[test]
    fn no_text_in_an_annotation_panics(name in 0..SERVICE_ANNOTATIONS.len(), value: String, more in "[/*.:a,% 0-9-]{0,12}") {
        let mut service = event(serde_json::json!({
            "kind": "Service", "metadata": {"name": "orders", "namespace": "shop", "annotations": {
                "portolan.dev/expose": "true",
            }},
            "spec": {"ports": [{"port": 80}]},
        }));
        let ObjectEvent::Service(object) = &mut service else { unreachable!("the kind says so") };
        for value in [value, more] {
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(format!("portolan.dev/{}", SERVICE_ANNOTATIONS[name].name), value);
            let mut index = Index::new();
            index.apply(ObjectEvent::Service(object.clone()));
            for route in &index.contribution(&orders(), &config()).unwrap_or_default().routes {
                for rule in &route.rules {
                    let path = rule.matches.first().map(|it| &it.path);
                    let is_sound = |prefix: &str| prefix.starts_with('/') && !prefix.ends_with('/');
                    proptest::prop_assert!(!matches!(path, Some(PathMatch::Prefix(prefix)) if !is_sound(prefix)));
                }
            }
        }
    }
}

// === The index ===

mod index_properties {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;

    /// What an API server would hold.
    #[derive(Default, Clone)]
    struct World {
        services: BTreeMap<(usize, usize), serde_json::Value>,
        slices: BTreeMap<(usize, usize), serde_json::Value>,
        namespaces: BTreeMap<usize, serde_json::Value>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Service(usize, usize, bool, u16),
        Slice(usize, usize, Option<usize>, Vec<u8>),
        Namespace(usize, Option<&'static str>),
        RemoveService(usize, usize),
        RemoveSlice(usize, usize),
        RemoveNamespace(usize),
        /// Of all kinds, for everything or for one namespace; with the objects in reverse order.
        Relist(Option<usize>),
        /// The last change once more, as watches do.
        Again,
    }

    fn steps() -> impl Strategy<Value = Step> {
        let (namespace, name) = (0_usize..2, 0_usize..3);
        let endpoints = proptest::collection::vec(1_u8..6, 0..4);
        let label = prop_oneof![Just(None), Just(Some("true")), Just(Some("false")), Just(Some("odd"))];
        prop_oneof![
            3 => (namespace.clone(), name.clone(), any::<bool>(), 80_u16..82).prop_map(|(ns, n, e, p)| Step::Service(ns, n, e, p)),
            6 => (namespace.clone(), 0_usize..5, proptest::option::weighted(0.9, name.clone()), endpoints)
                .prop_map(|(ns, n, owner, endpoints)| Step::Slice(ns, n, owner, endpoints)),
            1 => (namespace.clone(), label).prop_map(|(ns, label)| Step::Namespace(ns, label)),
            1 => (namespace.clone(), name).prop_map(|(ns, n)| Step::RemoveService(ns, n)),
            2 => (namespace.clone(), 0_usize..5).prop_map(|(ns, n)| Step::RemoveSlice(ns, n)),
            1 => namespace.clone().prop_map(Step::RemoveNamespace),
            1 => proptest::option::of(namespace).prop_map(Step::Relist),
            1 => Just(Step::Again),
        ]
    }

    fn namespace(n: usize) -> String {
        format!("ns{n}")
    }

    fn service(ns: usize, name: usize, expose: bool, port: u16) -> serde_json::Value {
        let mut service = serde_json::json!({
            "kind": "Service", "metadata": {"name": format!("s{name}"), "namespace": namespace(ns)},
            "spec": {"ports": [{"port": port}], "selector": {"a": "b"}},
        });
        if expose {
            service["metadata"]["annotations"] = serde_json::json!({"portolan.dev/expose": "true"});
        }
        service
    }

    fn slice(ns: usize, name: usize, owner: Option<usize>, endpoints: &[u8]) -> serde_json::Value {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|n| serde_json::json!({"addresses": [format!("10.0.0.{n}")], "targetRef": {"uid": format!("pod-{n}")}}))
            .collect();
        let mut slice = serde_json::json!({
            "kind": "EndpointSlice", "metadata": {"name": format!("e{name}"), "namespace": namespace(ns)},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
        });
        if let Some(owner) = owner {
            slice["metadata"]["labels"] =
                serde_json::json!({"kubernetes.io/service-name": format!("s{owner}")});
        }
        slice
    }

    impl World {
        /// Changes the world and returns what a watch tells of it.
        fn apply(&mut self, step: Step) -> Vec<ObjectEvent> {
            let gone = |kind: &str, ns: &str, name: String| {
                vec![ObjectEvent::Gone(ResourceRef::new(kind, ns, name))]
            };
            match step {
                Step::Service(ns, name, expose, port) => {
                    let object = service(ns, name, expose, port);
                    self.services.insert((ns, name), object.clone());
                    vec![event(object)]
                }
                Step::Slice(ns, name, owner, endpoints) => {
                    let object = slice(ns, name, owner, &endpoints);
                    self.slices.insert((ns, name), object.clone());
                    vec![event(object)]
                }
                Step::Namespace(ns, label) => {
                    let mut object =
                        serde_json::json!({"kind": "Namespace", "metadata": {"name": namespace(ns)}});
                    if let Some(label) = label {
                        object["metadata"]["labels"] = serde_json::json!({"portolan.dev/expose": label});
                    }
                    self.namespaces.insert(ns, object.clone());
                    vec![event(object)]
                }
                Step::RemoveService(ns, name) => {
                    self.services.remove(&(ns, name));
                    gone("Service", &namespace(ns), format!("s{name}"))
                }
                Step::RemoveSlice(ns, name) => {
                    self.slices.remove(&(ns, name));
                    gone("EndpointSlice", &namespace(ns), format!("e{name}"))
                }
                Step::RemoveNamespace(ns) => {
                    self.namespaces.remove(&ns);
                    gone("Namespace", "", namespace(ns))
                }
                Step::Relist(within) => self.relist(within),
                Step::Again => Vec::new(),
            }
        }

        fn relist(&self, within: Option<usize>) -> Vec<ObjectEvent> {
            let scope = within.map_or(Scope::All, |ns| Scope::Namespace(namespace(ns)));
            let is_in = |ns: &usize| within.is_none_or(|within| within == *ns);
            let services = self.services.iter().rev().filter(|((ns, _), _)| is_in(ns));
            let slices = self.slices.iter().rev().filter(|((ns, _), _)| is_in(ns));
            let services = services.map(|(_, it)| serde_json::from_value(it.clone()).unwrap()).collect();
            let slices = slices.map(|(_, it)| serde_json::from_value(it.clone()).unwrap()).collect();
            let namespaces =
                self.namespaces.values().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
            vec![
                ObjectEvent::AllEndpointSlices(scope.clone(), slices),
                ObjectEvent::AllServices(scope, services),
                ObjectEvent::AllNamespaces(namespaces),
            ]
        }
    }

    fn everything(index: &Index, config: &TranslateConfig) -> BTreeMap<ResourceRef, Contribution> {
        let said = |key: ResourceRef| index.contribution(&key, config).map(|said| (key, said));
        index.keys().into_iter().filter_map(said).collect()
    }

    proptest! {
        /// A consumer that asks only for the keys that each event names holds the same as one that starts afresh.
        #[test]
        fn following_the_named_keys_equals_starting_afresh(sequence in proptest::collection::vec(steps(), 1..60)) {
            let config = TranslateConfig::kubernetes("ns0");
            let mut world = World::default();
            let mut index = Index::new();
            let mut followed = BTreeMap::new();
            let mut last = Vec::new();
            for step in sequence {
                if !matches!(step, Step::Again) {
                    last = world.apply(step);
                }
                for event in last.clone() {
                    for key in index.apply(event) {
                        match index.contribution(&key, &config) {
                            Some(said) => followed.insert(key, said),
                            None => followed.remove(&key),
                        };
                    }
                }
                let mut fresh = Index::new();
                for event in world.relist(None) {
                    fresh.apply(event);
                }
                prop_assert_eq!(&followed, &everything(&fresh, &config));
                prop_assert_eq!(&followed, &everything(&index, &config));
            }
            let relisted: Vec<_> = world.relist(None).into_iter().flat_map(|event| index.apply(event)).collect();
            let touched_services = relisted.iter().filter(|key| &*key.kind == "Service").count();
            prop_assert_eq!(touched_services, 0, "a full list that says nothing new touches nothing");
        }
    }
}
