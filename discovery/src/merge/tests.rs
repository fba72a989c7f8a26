//! The incremental merge against a plain rebuild, and the rule itself.

use portolan_model::{
    BackendRef, ClusterPolicy, Endpoint, HostMatch, Hostname, Match, PathMatch, PortMatch, Rank, Role, Roles,
    Rule,
};
use proptest::prelude::*;

use super::*;

fn resource(name: usize) -> ResourceRef {
    ResourceRef::new("Service", "shop", format!("s{name}"))
}

fn route(id: &str, roles: Roles, host: Option<&str>, path: &str) -> Arc<Route> {
    let host = host.map(|host| HostMatch { host: Hostname::parse(host).unwrap(), port: PortMatch::Any });
    Arc::new(Route {
        id: RouteId::new(id),
        source: resource(0),
        roles,
        hosts: host.into_iter().collect(),
        rules: vec![Rule {
            rank: Rank {
                order: 0,
                specificity: std::cmp::Reverse([0, 0, 0]),
                created: 0,
                tie: (id.into(), 0),
            },
            matches: vec![Match { path: PathMatch::Prefix(path.into()), ..Match::default() }],
            filters: Vec::new(),
            backends: vec![BackendRef { cluster: ClusterId::from_text("c"), weight: 1 }],
        }],
    })
}

fn cluster(id: &str, last: u8) -> Arc<Cluster> {
    let endpoint = |n: u8| Endpoint::new(([10, 0, 0, n], 80).into());
    Arc::new(Cluster {
        id: ClusterId::from_text(id),
        source: resource(0),
        endpoints: (1..=last).map(endpoint).collect(),
        policy: Arc::new(ClusterPolicy::default()),
    })
}

fn with_routes(created: i64, routes: Vec<Arc<Route>>) -> Contribution {
    Contribution { created, routes, ..Contribution::default() }
}

#[test]
fn the_oldest_holds_a_claim_and_the_others_are_told_of_both() {
    let mut merge = Merge::default();
    let young = with_routes(20, vec![route("young", Roles::ALL, Some("a.example"), "/x")]);
    let old = with_routes(10, vec![route("old", Roles::ALL, Some("a.example"), "/x")]);
    assert!(merge.upsert(0, resource(1), young));
    assert!(merge.publish().unwrap().routes.contains_key(&RouteId::new("young")));
    assert!(merge.findings().is_empty());

    assert!(merge.upsert(0, resource(2), old));
    let picture = merge.publish().unwrap();
    assert!(picture.routes.keys().eq([&RouteId::new("old")]));
    let findings = merge.findings();
    assert_eq!(findings.len(), 1, "one for both roles: {findings:?}");
    assert_eq!(findings[0].resource, resource(1));
    assert_eq!(findings[0].field, "host a.example, path /x/**");
    assert!(
        findings[0].message.contains("Service shop/s1") && findings[0].message.contains("Service shop/s2")
    );

    assert!(merge.remove(0, &resource(2)));
    assert!(merge.publish().unwrap().routes.keys().eq([&RouteId::new("young")]));
    assert!(merge.findings().is_empty());
}

#[test]
fn what_differs_in_role_host_or_path_is_no_conflict() {
    let mut merge = Merge::default();
    let edge = Roles { edge: true, cluster: false };
    let routes = [
        route("a", Roles::CLUSTER, None, "/x"),
        route("b", edge, None, "/x"),
        route("c", Roles::ALL, Some("a.example"), "/x"),
        route("d", Roles::ALL, Some("b.example"), "/x"),
        route("e", Roles::ALL, None, "/x/y"),
    ];
    for (name, route) in routes.into_iter().enumerate() {
        merge.upsert(0, resource(name), with_routes(0, vec![route]));
    }
    assert_eq!(merge.publish().unwrap().routes.len(), 5);
    assert!(merge.findings().is_empty());
}

#[test]
fn an_object_from_two_sources_counts_once() {
    let mut merge = Merge::default();
    let said = |last| Contribution {
        clusters: vec![cluster("c", last), cluster("d", last)],
        routes: vec![route("r", Roles::ALL, None, "/x")],
        ..Contribution::default()
    };
    merge.upsert(1, resource(0), said(1));
    merge.upsert(0, resource(0), said(2));
    let picture = merge.publish().unwrap();
    assert_eq!(picture.clusters[&ClusterId::from_text("c")].endpoints.len(), 2, "the first source counts");
    let reasons: Vec<_> = merge.findings().into_iter().map(|it| it.reason).collect();
    assert_eq!(reasons, ["DuplicateObject"]);
}

#[test]
fn unchanged_parts_keep_their_arc() {
    let mut merge = Merge::default();
    let said = |last| Contribution {
        clusters: vec![cluster("c", last), cluster("d", 1)],
        routes: vec![route("r", Roles::ALL, None, "/x")],
        ..Contribution::default()
    };
    let (c, d, r) = (ClusterId::from_text("c"), ClusterId::from_text("d"), RouteId::new("r"));
    merge.upsert(0, resource(0), said(1));
    let first = merge.publish().unwrap();
    assert!(!merge.upsert(0, resource(0), said(1)), "nothing changed");
    assert_eq!(merge.publish(), None);

    assert!(merge.upsert(0, resource(0), said(2)));
    let second = merge.publish().unwrap();
    assert!(Arc::ptr_eq(&first.routes[&r], &second.routes[&r]));
    assert!(Arc::ptr_eq(&first.clusters[&d], &second.clusters[&d]));
    assert!(!Arc::ptr_eq(&first.clusters[&c], &second.clusters[&c]));
    assert!(Arc::ptr_eq(&first.clusters[&c].policy, &second.clusters[&c].policy));

    // There and back between two publications.
    merge.upsert(0, resource(0), said(3));
    merge.upsert(0, resource(0), said(2));
    assert_eq!(merge.publish(), None);
    merge.remove(0, &resource(0));
    merge.upsert(0, resource(0), said(2));
    assert_eq!(merge.publish(), None);
    assert!(Arc::ptr_eq(&merge.current.clusters[&c], &second.clusters[&c]));
}

// === Properties ===

#[derive(Debug, Clone)]
enum Step {
    Upsert(usize, usize, Contribution),
    Remove(usize, usize),
    ReplaceAll(usize, Vec<(usize, Contribution)>),
    Publish,
}

fn contributions() -> impl Strategy<Value = Contribution> {
    let roles = prop_oneof![Just(Roles::ALL), Just(Roles::CLUSTER)];
    let host = proptest::option::of(prop_oneof![Just("a.example"), Just("b.example")]);
    let path = prop_oneof![Just("/x"), Just("/y"), Just("/z")];
    let id = prop_oneof![Just("r1"), Just("r2"), Just("r3"), Just("r4")];
    let routes = proptest::collection::vec((id, roles, host, path), 0..3);
    let clusters = proptest::collection::vec((prop_oneof![Just("c"), Just("d"), Just("e")], 0_u8..3), 0..3);
    let findings = proptest::collection::vec(0_usize..3, 0..2);
    (0_i64..3, routes, clusters, findings).prop_map(|(created, routes, clusters, findings)| {
        let mut said = Contribution { created, ..Contribution::default() };
        for (id, roles, host, path) in routes {
            if said.routes.iter().all(|it| it.id.as_str() != id) {
                said.routes.push(route(id, roles, host, path));
            }
        }
        for (id, last) in clusters {
            if said.clusters.iter().all(|it| it.id.as_str() != id) {
                said.clusters.push(cluster(id, last));
            }
        }
        said.findings = findings.iter().map(|n| Finding::error(&resource(*n), "f", "R", "m")).collect();
        said
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let (source, name) = (0_usize..2, 0_usize..5);
    prop_oneof![
        6 => (source.clone(), name.clone(), contributions()).prop_map(|(s, n, c)| Step::Upsert(s, n, c)),
        2 => (source.clone(), name.clone()).prop_map(|(s, n)| Step::Remove(s, n)),
        1 => (source, proptest::collection::vec((name, contributions()), 0..4))
            .prop_map(|(s, all)| Step::ReplaceAll(s, all)),
        2 => Just(Step::Publish),
    ]
}

type Held = BTreeMap<(ResourceRef, usize), Contribution>;

/// What the rule says, read off word by word.
fn rebuild(held: &Held) -> Picture {
    let order = |(resource, source): &(ResourceRef, usize), said: &Contribution| {
        (said.created, resource.clone(), *source)
    };
    let holds = |mine: &(ResourceRef, usize), claim: &Claim<'_>| {
        let claimants = held.iter().filter(|(_, said)| claims::of_contribution(said).contains(claim));
        claimants.min_by_key(|(name, said)| order(name, said)).is_some_and(|(name, _)| name == mine)
    };
    let mut picture = Picture::default();
    for (name, said) in held {
        for route in &said.routes {
            if claims::of_route(route).iter().all(|claim| holds(name, claim)) {
                picture.routes.insert(route.id.clone(), route.clone());
            }
        }
        for cluster in &said.clusters {
            if holds(name, &Claim::Cluster(&cluster.id)) {
                picture.clusters.insert(cluster.id.clone(), cluster.clone());
            }
        }
    }
    picture
}

proptest! {
    #[test]
    fn any_sequence_equals_a_rebuild(sequence in proptest::collection::vec(steps(), 1..40)) {
        let mut merge = Merge::default();
        let mut held = Held::new();
        let mut published = Picture::default();
        let mut findings = Vec::new();
        for step in sequence {
            match step {
                Step::Upsert(source, name, said) => {
                    held.insert((resource(name), source), said.clone());
                    merge.upsert(source, resource(name), said);
                }
                Step::Remove(source, name) => {
                    held.remove(&(resource(name), source));
                    merge.remove(source, &resource(name));
                }
                Step::ReplaceAll(source, all) => {
                    let all: Vec<_> = all.into_iter().map(|(name, said)| (resource(name), said)).collect();
                    held.retain(|(_, of), _| *of != source);
                    held.extend(all.iter().cloned().map(|(resource, said)| ((resource, source), said)));
                    merge.replace_all(source, all);
                }
                Step::Publish => {
                    let expected = rebuild(&held);
                    let differs = expected != published;
                    let picture = merge.publish();
                    prop_assert_eq!(picture.is_some(), differs, "published exactly when something differs");
                    if let Some(picture) = picture {
                        for (id, before) in &published.clusters {
                            let now = picture.clusters.get(id);
                            prop_assert!(now.is_none_or(|now| now != before || Arc::ptr_eq(now, before)));
                        }
                        for (id, before) in &published.routes {
                            let now = picture.routes.get(id);
                            prop_assert!(now.is_none_or(|now| now != before || Arc::ptr_eq(now, before)));
                        }
                        published = picture;
                    }
                }
            }
            prop_assert_eq!(&merge.current, &rebuild(&held));
            prop_assert_eq!(merge.objects(), held.len());
            let mut fresh = Merge::default();
            for ((resource, source), said) in &held {
                fresh.upsert(*source, resource.clone(), said.clone());
            }
            prop_assert_eq!(&merge.findings(), &fresh.findings());
            let changed = merge.take_findings_changed();
            prop_assert!(changed || merge.findings() == findings, "a change of findings is noticed");
            findings = merge.findings();
        }
        // Nothing is left behind.
        for ((resource, source), _) in held {
            merge.remove(source, &resource);
        }
        prop_assert_eq!(&merge.current, &Picture::default());
        prop_assert!(merge.findings().is_empty());
        prop_assert!(merge.claims.is_empty());
    }

    #[test]
    fn claims_of_role_and_host_are_told_apart(host in "[a-c]", port in 1_u16..4) {
        let host = HostMatch { host: Hostname::parse(&host).unwrap(), port: PortMatch::Exact(port) };
        let mut claims = Claims::default();
        claims.lay(&Claim::Answer(Role::Edge, Some(&host), None), 1, |id| id);
        prop_assert_eq!(claims.holder(&Claim::Answer(Role::Edge, Some(&host), None)), Some(1));
        prop_assert_eq!(claims.holder(&Claim::Answer(Role::Cluster, Some(&host), None)), None);
        prop_assert_eq!(claims.holder(&Claim::Answer(Role::Edge, None, None)), None);
    }
}
