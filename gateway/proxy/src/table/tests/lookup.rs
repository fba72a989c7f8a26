//! What a request finds.

use portolan_model::{NameValueMatch, ValueMatch};

use super::*;
use crate::table::{Question, explain};

#[test]
fn an_exact_host_is_preferred_to_a_wildcard_and_that_to_any_host() {
    let all =
        |id: &str, hosts, specificity| route(id, hosts, vec![rule(rank(id, 0, specificity), Vec::new(), id)]);
    let table = table(&[
        all("exact", vec![host("a.example.com", PortMatch::Any)], [100, 0, 0]),
        all("longer", vec![host("*.b.example.com", PortMatch::Any)], [60, 0, 0]),
        all("shorter", vec![host("*.example.com", PortMatch::Any)], [50, 0, 0]),
        all("any", Vec::new(), [0, 0, 0]),
    ]);
    for (url, expected) in [
        ("a.example.com/", "exact#0"),
        ("a.example.com:8080/", "exact#0"),
        ("x.b.example.com/", "longer#0"),
        ("b.example.com/", "shorter#0"),
        ("x.y.example.com/", "shorter#0"),
        ("example.com/", "any#0"),
        ("/", "any#0"),
    ] {
        assert_eq!(get(url).at(&table, Role::Edge), expected, "{url}");
    }
}

#[test]
fn the_port_of_the_authority_selects_and_an_unknown_one_is_told_apart() {
    let ports = |id: &str, ports: &[PortMatch]| {
        let hosts = ports.iter().map(|&port| host("orders", port)).collect();
        route(id, hosts, vec![rule(rank(id, 0, [100, 0, 0]), Vec::new(), id)])
    };
    let table = table(&[
        ports("web", &[PortMatch::Absent, PortMatch::Exact(80)]),
        ports("admin", &[PortMatch::Exact(8080)]),
        path_route("billing"),
    ]);
    for (url, expected) in [
        ("orders/", "web#0"),
        ("orders:80/", "web#0"),
        ("orders:8080/x", "admin#0"),
        ("orders:81/", "unknown port"),
        ("orders:81/billing", "unknown port"),
        ("other:81/billing", "billing#0"),
        ("other:81/", "no route"),
    ] {
        assert_eq!(get(url).at(&table, Role::Cluster), expected, "{url}");
    }
}

#[test]
fn a_rule_is_reachable_in_its_roles_only() {
    let mut inside = (*path_route("inside")).clone();
    inside.roles = Roles::CLUSTER;
    let table = table(&[Arc::new(inside)]);
    assert_eq!(get("/inside").at(&table, Role::Cluster), "inside#0");
    assert_eq!(get("/inside").at(&table, Role::Edge), "no route");
}

#[test]
fn paths_match_by_whole_segments_and_the_longest_wins() {
    let table = table(&[path_route("a"), path_route("a/b"), path_route("ab"), path_route("a/b/c/d")]);
    for (url, expected) in [
        ("/a", "a#0"),
        ("/a/", "a#0"),
        ("/a/x", "a#0"),
        ("/a/b", "a/b#0"),
        ("/a/b/c", "a/b#0"),
        ("/a/b/c/d/e/f", "a/b/c/d#0"),
        ("/ab/c", "ab#0"),
        ("/abc", "no route"),
        ("/", "no route"),
        ("*", "no route"),
    ] {
        assert_eq!(get(url).at(&table, Role::Edge), expected, "{url}");
    }
}

#[test]
fn method_header_and_query_must_all_hold() {
    let value = |name: &str, value| NameValueMatch { name: name.to_owned(), value };
    let wanted = Match {
        path: PathMatch::Regex("/v[0-9]+/.*".to_owned()),
        method: Some("GET".to_owned()),
        headers: vec![value("x-tenant", ValueMatch::Regex("[a-z]+".to_owned()))],
        query: vec![value("debug", ValueMatch::Present), value("n", ValueMatch::Exact("1".to_owned()))],
    };
    let table = table(&[route("r", Vec::new(), vec![rule(rank("r", 0, [0, 0, 0]), vec![wanted], "r")])]);
    let mut asked = get("/v1/x?n=0&debug&n=1");
    assert_eq!(asked.at(&table, Role::Edge), "no route", "the header is missing");
    asked.headers.append("x-tenant", "UPPER".parse().unwrap());
    assert_eq!(asked.at(&table, Role::Edge), "no route", "a regular expression means the whole value");
    asked.headers.append("x-tenant", "acme".parse().unwrap());
    assert_eq!(asked.at(&table, Role::Edge), "r#0", "one of several values is enough");
    asked.query = Some("n=1".to_owned());
    assert_eq!(asked.at(&table, Role::Edge), "no route", "a parameter is missing");
    asked.query = Some("debug=&n=1".to_owned());
    asked.method = Method::POST;
    assert_eq!(asked.at(&table, Role::Edge), "no route", "the method differs");
}

#[test]
fn what_cannot_be_compiled_is_a_finding_and_the_rest_serves_on() {
    let now = Instant::now();
    let value = |name: &str| NameValueMatch { name: name.to_owned(), value: ValueMatch::Present };
    let bad = route(
        "bad",
        Vec::new(),
        vec![
            rule(
                rank("bad", 0, [0, 9, 0]),
                vec![path(PathMatch::Regex("a)|(b".to_owned())), prefix("/kept")],
                "a",
            ),
            rule(rank("bad", 1, [0, 8, 0]), vec![path(PathMatch::Regex("(x{1000}){1000}".to_owned()))], "a"),
            rule(
                rank("bad", 2, [0, 7, 0]),
                vec![Match { headers: vec![value("no name")], ..prefix("/h") }],
                "a",
            ),
            rule(
                rank("bad", 3, [0, 6, 0]),
                vec![Match { method: Some("G T".to_owned()), ..prefix("/m") }],
                "a",
            ),
        ],
    );
    let snapshot = snapshot(1, &[bad, path_route("good")], &[cluster("a", &[]), cluster("good", &[])]);
    let mut clusters = Clusters::default();
    clusters.follow(&Snapshot::default(), &snapshot, now).retire();
    let (table, findings) = RoutingTable::compile(&snapshot, &clusters, &RoutingTable::empty(), now);

    let told =
        findings.iter().map(|finding| (finding.reason.as_ref(), finding.field.as_str())).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            ("InvalidRegex", "rules[0].matches[0].path"),
            ("InvalidRegex", "rules[1].matches[0].path"),
            ("InvalidHeaderName", "rules[2].matches[0].headers[no name]"),
            ("InvalidMethod", "rules[3].matches[0].method"),
        ]
    );
    assert!(findings.iter().all(|finding| finding.resource == service("bad")));
    assert!(findings[0].message.contains("a)|(b"), "{}", findings[0].message);
    assert_eq!(get("/kept/1").at(&table, Role::Edge), "bad#0", "the other alternative of the rule holds");
    assert_eq!(get("/good").at(&table, Role::Edge), "good#0");
    assert_eq!(
        get("/h").at(&table, Role::Edge),
        "no route",
        "a rule without a sound match is not a rule for all"
    );
}

#[test]
fn a_backend_that_does_not_exist_leaves_the_rule_without_endpoints() {
    let now = Instant::now();
    let (mut publisher, published) = publisher();
    publisher.publish(&snapshot(1, &[path_route("orders")], &[]));
    let table = published.table.load_full();
    let asked = get("/orders");
    let rule = table.find_http(Role::Edge, &asked.view()).unwrap();
    assert!(rule.backend(7).unwrap().state().endpoints.is_empty());
    let finding = published.findings.borrow()[0].clone();
    assert_eq!((finding.reason.as_ref(), &finding.resource), ("UnknownCluster", &service("orders")));
    assert!(finding.message.contains("shop/orders:80"), "{}", finding.message);
    let view = serde_json::to_value(table.view(now)).unwrap();
    assert_eq!(view["routes"][0]["compiled"][0]["missing"][0], "shop/orders:80");

    publisher.publish(&snapshot(2, &[path_route("orders")], &[cluster("orders", &["10.0.0.1:80"])]));
    let table = published.table.load_full();
    let rule = table.find_http(Role::Edge, &asked.view()).unwrap();
    assert_eq!(rule.backend(7).unwrap().state().endpoints.len(), 1, "the cluster came, so the rule has it");
    assert!(published.findings.borrow().is_empty());
}

#[test]
fn backends_are_chosen_by_weight() {
    let backends = [("a", 3), ("none", 0), ("b", 1)];
    let backends = backends.map(|(name, weight)| BackendRef { cluster: cluster_id(name), weight }).to_vec();
    let all = Rule { backends, ..rule(rank("r", 0, [0, 0, 0]), Vec::new(), "a") };
    let table = table(&[route("r", Vec::new(), vec![all])]);
    let asked = get("/");
    let rule = table.find_http(Role::Edge, &asked.view()).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for step in 0..4096_u32 {
        *counts.entry(rule.backend(step << 20).unwrap().id().to_string()).or_insert(0) += 1;
    }
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [("shop/a:80".to_owned(), 3072), ("shop/b:80".to_owned(), 1024)]
    );
}

#[test]
fn each_of_five_thousand_services_is_found_by_path_and_by_its_names() {
    let routes = (0..5000).flat_map(|number| {
        let name = format!("service-{number}");
        let hosts = [PortMatch::Absent, PortMatch::Exact(80)]
            .into_iter()
            .flat_map(|port| [host(&name, port), host(&format!("{name}.shop.svc.cluster.local"), port)])
            .collect();
        let id = format!("{name}/authority");
        [path_route(&name), route(&id, hosts, vec![rule(rank(&id, 0, [100, 0, 0]), Vec::new(), &name)])]
    });
    let table = table(&routes.collect::<Vec<_>>());
    for number in 0..5000 {
        for (url, expected) in [
            (format!("gateway/service-{number}/items/7"), format!("service-{number}#0")),
            (format!("service-{number}/items/7"), format!("service-{number}/authority#0")),
            (format!("service-{number}.shop.svc.cluster.local:80/"), format!("service-{number}/authority#0")),
            (format!("service-{number}:81/"), "unknown port".to_owned()),
        ] {
            assert_eq!(get(&url).at(&table, Role::Cluster), expected, "{url}");
        }
    }
}

#[test]
fn an_explanation_names_the_rule_its_endpoints_and_the_nearest_others() {
    let now = Instant::now();
    let (mut publisher, published) = publisher();
    let posting = Match { method: Some("POST".to_owned()), ..prefix("/orders/new") };
    let posting =
        route("posting", Vec::new(), vec![rule(rank("posting", 0, [0, 11, 1]), vec![posting], "orders")]);
    let hosts = vec![host("orders", PortMatch::Exact(80))];
    let inside = route("inside", hosts, vec![rule(rank("inside", 0, [9, 0, 0]), Vec::new(), "orders")]);
    let shorter =
        route("shorter", Vec::new(), vec![rule(rank("shorter", 0, [0, 0, 0]), Vec::new(), "orders")]);
    let routes = [path_route("orders"), posting, inside, shorter, path_route("billing")];
    publisher.publish(&snapshot(3, &routes, &[cluster("orders", &["10.0.0.1:80", "10.0.0.2:80"])]));
    let table = published.table.load_full();

    let question = Question::parse(Role::Edge, "GET", "http://Shop.example.com/orders/new?x=1").unwrap();
    let answer = table.explain(&question, now);
    assert_eq!(answer.summary, "rule 0 of route orders answers, by one of 2 endpoints");
    assert_eq!((answer.generation, answer.rule), (3, Some(0)));
    assert!(
        answer.backends[0].endpoints.iter().all(|endpoint| endpoint.usable && endpoint.why.contains("ready"))
    );
    let why =
        answer.passed_over.iter().map(|other| (other.route.as_str(), other.why.as_str())).collect::<Vec<_>>();
    assert_eq!(
        why,
        [
            ("shorter", "it matches, too, but rule 0 of route orders comes first"),
            ("posting", "its method is not GET"),
            ("inside", "its hosts do not include \"shop.example.com\""),
            ("billing", "its path does not match /orders/new"),
        ]
    );
    assert!(serde_json::to_string(&answer).unwrap().contains("10.0.0.2:80"));

    let question = Question::parse(Role::Cluster, "GET", "http://orders:81/").unwrap();
    assert_eq!(table.explain(&question, now).summary, "404: the host is known, but not with this port");
    for (method, url) in [("G T", "/"), ("GET", "http://"), ("GET", "a b")] {
        let error = Question::parse(Role::Edge, method, url).unwrap_err();
        assert!(
            matches!(error, explain::InvalidQuestion::Method(_) | explain::InvalidQuestion::Url(_)),
            "{error}"
        );
    }
}
