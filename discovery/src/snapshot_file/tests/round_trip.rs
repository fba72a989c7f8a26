//! Every snapshot is read back equal.

use std::os::unix::fs::PermissionsExt;

use portolan_model::{
    Affinity, Balancing, EndpointKey, HealthCheck, NameValueMatch, OutlierDetection, Probe, Readiness,
    RetryPolicy, Timeouts, ValueMatch,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Text with everything that JSON has to take care of.
fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("(?s).{0,12}").unwrap()
}

fn time() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn host() -> impl Strategy<Value = HostMatch> {
    let name = prop_oneof![
        "[A-Za-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,3}\\.?",
        "\\*\\.[a-z]{1,9}",
        any::<std::net::Ipv6Addr>().prop_map(|it| format!("[{it}]"))
    ];
    let port =
        prop_oneof![Just(PortMatch::Any), Just(PortMatch::Absent), any::<u16>().prop_map(PortMatch::Exact)];
    (name, port).prop_map(|(name, port)| HostMatch { host: Hostname::parse(&name).unwrap(), port })
}

fn named_value() -> impl Strategy<Value = NameValueMatch> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        text().prop_map(ValueMatch::Exact),
        text().prop_map(ValueMatch::Regex)
    ];
    (text(), value).prop_map(|(name, value)| NameValueMatch { name, value })
}

fn one_match() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        Just(PathMatch::Any),
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex)
    ];
    (path, option::of(text()), vec(named_value(), 0..3), vec(named_value(), 0..3))
        .prop_map(|(path, method, headers, query)| Match { path, method, headers, query })
}

fn rule() -> impl Strategy<Value = Rule> {
    let rank = (any::<i64>(), any::<[u32; 3]>(), any::<i64>(), text(), any::<u32>()).prop_map(
        |(order, specificity, created, tie, number)| Rank {
            order,
            specificity: std::cmp::Reverse(specificity),
            created,
            tie: (tie.into(), number),
        },
    );
    let filter = prop_oneof![text().prop_map(Filter::StripPrefix), text().prop_map(Filter::RewriteHost)];
    let backend = (text(), any::<u32>())
        .prop_map(|(cluster, weight)| BackendRef { cluster: ClusterId::from_text(cluster), weight });
    (rank, vec(one_match(), 0..3), vec(filter, 0..3), vec(backend, 0..3))
        .prop_map(|(rank, matches, filters, backends)| Rule { rank, matches, filters, backends })
}

fn source() -> impl Strategy<Value = ResourceRef> {
    (text(), text(), text()).prop_map(|(kind, namespace, name)| ResourceRef::new(kind, namespace, name))
}

fn route() -> impl Strategy<Value = Arc<Route>> {
    (text(), source(), any::<(bool, bool)>(), vec(host(), 0..3), vec(rule(), 0..3)).prop_map(
        |(id, source, (edge, cluster), hosts, rules)| {
            Arc::new(Route { id: RouteId::new(id), source, roles: Roles { edge, cluster }, hosts, rules })
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let readiness = prop_oneof![Just(Readiness::Ready), Just(Readiness::Draining), Just(Readiness::NotReady)];
    (any::<std::net::SocketAddr>(), option::of(text()), readiness, any::<u16>(), any::<u8>()).prop_map(
        |(mut address, uid, readiness, weight, priority)| {
            if let std::net::SocketAddr::V6(address) = &mut address {
                // No source names them, and text has no place for the first.
                address.set_flowinfo(0);
                address.set_scope_id(0);
            }
            Endpoint { key: EndpointKey { address, uid: uid.map(Into::into) }, readiness, weight, priority }
        },
    )
}

fn policy() -> impl Strategy<Value = ClusterPolicy> {
    let affinity = prop_oneof![
        Just(Affinity::None),
        Just(Affinity::ClientIp),
        text().prop_map(Affinity::Cookie),
        text().prop_map(Affinity::Header)
    ];
    let probe = prop_oneof![Just(Probe::Tcp), text().prop_map(Probe::Http)];
    let check =
        (probe, time(), time(), any::<(u32, u32)>()).prop_map(|(probe, interval, timeout, counts)| {
            let (healthy_threshold, unhealthy_threshold) = counts;
            HealthCheck { probe, interval, timeout, healthy_threshold, unhealthy_threshold }
        });
    let outlier_detection =
        (any::<(u32, u8, bool)>(), time(), time()).prop_map(|(rest, base_ejection, max_ejection)| {
            let (consecutive_failures, max_ejected_percent, eject_on_500) = rest;
            OutlierDetection {
                consecutive_failures,
                base_ejection,
                max_ejection,
                max_ejected_percent,
                eject_on_500,
            }
        });
    let retry = any::<[u32; 3]>().prop_map(|[max_retries, budget_percent, budget_floor_per_second]| {
        RetryPolicy { max_retries, budget_percent, budget_floor_per_second }
    });
    let timeouts = (time(), time(), time(), option::of(time())).prop_map(
        |(connect, response_header, stream_idle, request)| Timeouts {
            connect,
            response_header,
            stream_idle,
            request,
        },
    );
    let balancing = prop_oneof![Just(Balancing::RoundRobin), Just(Balancing::LeastConnection)];
    (balancing, affinity, option::of(check), outlier_detection, retry, timeouts, option::of(time())).prop_map(
        |(balancing, affinity, health_check, outlier_detection, retry, timeouts, slow_start)| ClusterPolicy {
            balancing,
            affinity,
            health_check,
            outlier_detection,
            retry,
            timeouts,
            slow_start,
        },
    )
}

fn cluster() -> impl Strategy<Value = Arc<Cluster>> {
    (text(), source(), vec(endpoint(), 0..4), policy()).prop_map(|(id, source, mut endpoints, policy)| {
        endpoints.sort_by(|a, b| a.key.cmp(&b.key));
        endpoints.dedup_by(|a, b| a.key == b.key);
        let (id, policy) = (ClusterId::from_text(id), Arc::new(policy));
        Arc::new(Cluster { id, source, endpoints: endpoints.into(), policy })
    })
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    (any::<u64>(), vec(route(), 0..4), vec(cluster(), 0..4)).prop_map(|(generation, routes, clusters)| {
        Snapshot {
            generation,
            routes: routes.into_iter().map(|it| (it.id.clone(), it)).collect(),
            clusters: clusters.into_iter().map(|it| (it.id.clone(), it)).collect(),
            ..Snapshot::default()
        }
    })
}

proptest! {
    #[test]
    fn every_snapshot_is_read_back_equal(snapshot in any_snapshot()) {
        let picture = decoded(&bytes(&snapshot, Timestamp::UNIX_EPOCH)).unwrap();
        prop_assert_eq!(picture.taken.generation, snapshot.generation);
        prop_assert!(picture.routes == snapshot.routes && picture.clusters == snapshot.clusters);
    }
}

#[test]
fn a_file_is_private_and_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    assert!(read(&path, &origin(), HOUR).unwrap().is_none(), "no file is no fault");
    // What a process that was killed while it wrote has left, open to all.
    std::fs::write(beside(&path).unwrap(), "half").unwrap();
    for services in [3, 1] {
        let size = write(&path, &snapshot(services, 2), Timestamp::now(), &origin()).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (size, 0o600));
        let picture = read(&path, &origin(), HOUR).unwrap().unwrap();
        assert_eq!(picture.clusters.len(), services);
    }
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["snapshot"]);
}

#[test]
fn equal_policies_are_shared() {
    let picture = decoded(&bytes(&snapshot(2, 1), Timestamp::UNIX_EPOCH)).unwrap();
    let mut policies = picture.clusters.values().map(|cluster| &cluster.policy);
    assert!(Arc::ptr_eq(policies.next().unwrap(), policies.next().unwrap()));
}

/// If this fails because a type of the model changed: raise `FORMAT`, unless files written before are still understood
/// and mean the same; then write the new text here.
#[test]
fn the_format_is_pinned() {
    let text = String::from_utf8(bytes(&snapshot(1, 1), Timestamp::UNIX_EPOCH)).unwrap();
    assert_eq!(text, include_str!("format-1.txt"));
}

#[test]
#[ignore = "prints how long a large file takes: cargo test --release -p portolan-discovery how_long -- --ignored --nocapture"]
fn how_long_a_hundred_thousand_endpoints_take() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("snapshot");
    let snapshot = snapshot(10_000, 10);
    for _ in 0..3 {
        let began = tokio::time::Instant::now();
        let size = write(&path, &snapshot, Timestamp::now(), &origin()).unwrap();
        let written = began.elapsed();
        let picture = read(&path, &origin(), HOUR).unwrap().unwrap();
        println!("{size} bytes, written in {written:?}, read in {:?}", began.elapsed() - written);
        assert!(picture.clusters == snapshot.clusters);
    }
}
