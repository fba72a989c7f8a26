use std::collections::BTreeMap;
use std::time::Duration;

use portolan_model::{self as model, Readiness};
use tokio::time::advance;

use super::*;
use crate::cluster::testing::{change, cluster, cluster_of, endpoint, number, pick, said};
use crate::cluster::{AffinityKey, Endpoint};

fn policy(balancing: Balancing) -> ClusterPolicy {
    ClusterPolicy { balancing, ..ClusterPolicy::default() }
}

fn weighted(number: u8, weight: u16) -> model::Endpoint {
    model::Endpoint { weight, ..said(number) }
}

/// How many of `count` picks each endpoint gets when each ends at once, over several workers.
fn spread(workers: &mut [Balancers], cluster: &Arc<Cluster>, count: usize) -> BTreeMap<u8, usize> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        let worker = random.usize(..workers.len());
        *counts.entry(number(&pick(&mut workers[worker], cluster).unwrap())).or_default() += 1;
    }
    counts
}

fn workers(count: usize) -> Vec<Balancers> {
    (0..count).map(|worker| Balancers::new(worker, count)).collect()
}

fn assert_within_two_percent(counts: &BTreeMap<u8, usize>, shares: &[(u8, f64)], count: usize) {
    for &(number, share) in shares {
        let (is, should) = (counts.get(&number).copied().unwrap_or_default() as f64, share * count as f64);
        assert!(
            (is - should).abs() <= 0.02 * should,
            "endpoint {number}: {is} instead of {should}, in {counts:?}"
        );
    }
}

#[test]
fn round_robin_is_even_over_any_number_of_workers() {
    for count in [1, 2, 3, 8] {
        for endpoints in [2, 3, 7, 20] {
            let cluster = cluster_of(endpoints, policy(Balancing::RoundRobin));
            let counts = spread(&mut workers(count), &cluster, 10_000);
            let shares =
                (1..=endpoints).map(|number| (number, 1.0 / f64::from(endpoints))).collect::<Vec<_>>();
            assert_within_two_percent(&counts, &shares, 10_000);
        }
    }
}

#[test]
fn round_robin_follows_weights_smoothly() {
    let endpoints = [weighted(1, 10), weighted(2, 20), weighted(3, 50), weighted(4, 0)];
    let cluster = cluster(endpoints, policy(Balancing::RoundRobin));
    let counts = spread(&mut workers(2), &cluster, 10_000);
    assert_within_two_percent(&counts, &[(1, 0.125), (2, 0.25), (3, 0.625), (4, 0.0)], 10_000);

    let mut one = Balancers::new(0, 1);
    let turns = (0..80).map(|_| number(&pick(&mut one, &cluster).unwrap())).collect::<Vec<_>>();
    for window in turns.windows(8) {
        let of = |wanted| window.iter().filter(|&&number| number == wanted).count();
        assert_eq!((of(1), of(2), of(3)), (1, 2, 5), "no share comes in a burst: {turns:?}");
    }
}

#[test]
fn weights_with_a_huge_sum_are_scaled() {
    let cluster =
        cluster([weighted(1, 65_535), weighted(2, 65_534), weighted(3, 1)], policy(Balancing::RoundRobin));
    let counts = spread(&mut workers(1), &cluster, 100_000);
    assert_within_two_percent(&counts, &[(1, 0.5), (2, 0.5)], 100_000);
    assert!(counts[&3] < 20, "{counts:?}");
}

#[test]
fn a_swap_keeps_the_cursor() {
    let cluster = cluster_of(6, policy(Balancing::RoundRobin));
    let mut all = workers(2);
    let mut counts = BTreeMap::new();
    for step in 0..10_000 {
        if step % 7 == 0 {
            change(&cluster, (1..=6 + u8::from(step % 2 == 0)).map(said));
        }
        *counts.entry(number(&pick(&mut all[step % 2], &cluster).unwrap())).or_insert(0) += 1;
    }
    let kept = (1..=6).map(|number| counts[&number]).sum::<usize>();
    assert_within_two_percent(&counts, &(1..=6).map(|number| (number, 1.0 / 6.0)).collect::<Vec<_>>(), kept);
}

#[test]
fn a_swap_is_seen_by_the_next_pick() {
    let cluster = cluster_of(2, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    assert!(number(&pick(&mut one, &cluster).unwrap()) <= 2);
    change(&cluster, [said(3)]);
    assert_eq!(number(&pick(&mut one, &cluster).unwrap()), 3);
    change(&cluster, []);
    assert_eq!(pick(&mut one, &cluster).unwrap_err(), NoEndpoint::Empty);
    change(&cluster, [weighted(4, 3), weighted(5, 1)]);
    let counts = spread(std::slice::from_mut(&mut one), &cluster, 400);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(4, 300), (5, 100)]);
}

/// Workers pick, answer and cancel while endpoints come, go and fail.
#[test]
fn nothing_is_lost_when_workers_and_swaps_race() {
    let cluster = cluster_of(8, policy(Balancing::LeastConnection));
    let mut everyone = cluster.state().endpoints.to_vec();
    // Passed twice: when every worker has done its steps, and when the cluster is as it stays.
    let together = Arc::new(std::sync::Barrier::new(4));
    let workers = (0..3).map(|worker| {
        let (cluster, together) = (Arc::clone(&cluster), Arc::clone(&together));
        std::thread::spawn(move || {
            let mut own = Balancers::new(worker, 3);
            for step in 0..5000 {
                let Ok(mut pick) = pick(&mut own, &cluster) else { continue };
                match step % 3 {
                    0 => pick.record(crate::cluster::Outcome::Reset, Instant::now()),
                    1 => pick.record(crate::cluster::Outcome::Answered(http::StatusCode::OK), Instant::now()),
                    _ => drop(pick),
                }
            }
            together.wait();
            together.wait();
            pick(&mut own, &cluster).unwrap().endpoint().id()
        })
    });
    let workers = workers.collect::<Vec<_>>();
    for step in 0..500_u32 {
        change(&cluster, (1..=8).filter(|number| (step >> (number % 8)) & 1 == 0).map(said));
        everyone.extend(cluster.state().endpoints.iter().map(Arc::clone));
    }
    change(&cluster, (1..=8).map(said));
    together.wait();
    assert!(everyone.iter().all(|endpoint| endpoint.in_flight() == 0));
    let present = cluster.state().endpoints.iter().map(|endpoint| endpoint.id()).collect::<Vec<_>>();
    together.wait();
    for picked in workers.into_iter().map(|worker| worker.join().unwrap()) {
        assert!(present.contains(&picked));
    }
}

#[test]
fn picks_do_not_touch_the_counts_that_workers_share() {
    let cluster = cluster_of(1, ClusterPolicy::default());
    let mut own = Balancers::new(0, 2);
    drop(pick(&mut own, &cluster));
    let endpoint = endpoint(&cluster, 0);
    let counts = || (Arc::strong_count(&endpoint), Arc::strong_count(&cluster));
    let before = counts();
    let picks = (0..10).map(|_| pick(&mut own, &cluster).unwrap()).collect::<Vec<_>>();
    assert_eq!((counts(), endpoint.in_flight()), (before, 10));
    drop(picks);
    assert_eq!((counts(), endpoint.in_flight()), (before, 0));
}

#[test]
fn least_connection_prefers_the_least_loaded_over_all_workers() {
    let cluster = cluster_of(4, policy(Balancing::LeastConnection));
    let mut all = workers(2);
    let mut held = (0..8).map(|step| pick(&mut all[step % 2], &cluster).unwrap()).collect::<Vec<_>>();
    assert!(
        (0..4).all(|at| endpoint(&cluster, at).in_flight() == 2),
        "eight requests fill four endpoints evenly"
    );
    held.retain(|pick| number(pick) != 3);
    assert_eq!(number(&pick(&mut all[0], &cluster).unwrap()), 3);
    assert_eq!(number(&pick(&mut all[1], &cluster).unwrap()), 3);
}

#[test]
fn least_connection_is_relative_to_weight_and_equals_take_turns() {
    let cluster = cluster([weighted(1, 1), weighted(2, 3)], policy(Balancing::LeastConnection));
    let mut one = Balancers::new(0, 1);
    let held = (0..40).map(|_| pick(&mut one, &cluster).unwrap()).collect::<Vec<_>>();
    assert_eq!((endpoint(&cluster, 0).in_flight(), endpoint(&cluster, 1).in_flight()), (10, 30));
    drop(held);
    let counts = spread(&mut workers(2), &cluster, 10_000);
    assert_within_two_percent(&counts, &[(1, 0.25), (2, 0.75)], 10_000);
}

#[test]
fn a_slow_endpoint_gets_little_under_least_connection_and_its_share_under_round_robin() {
    for (balancing, expected) in
        [(Balancing::LeastConnection, 0.0..=0.08), (Balancing::RoundRobin, 0.24..=0.26)]
    {
        let cluster = cluster_of(4, policy(balancing));
        let mut all = workers(2);
        // An open loop of one request a step; an endpoint answers after one step, the slow one after ten.
        let mut running = Vec::<(usize, Pick)>::new();
        let mut slow = 0;
        for step in 0..10_000 {
            running.retain(|(until, _)| *until > step);
            let pick = pick(&mut all[step % 2], &cluster).unwrap();
            let is_slow = number(&pick) == 1;
            slow += usize::from(is_slow);
            running.push((step + if is_slow { 20 } else { 2 }, pick));
        }
        let share = slow as f64 / 10_000.0;
        assert!(expected.contains(&share), "{balancing:?}: {share}");
    }
}

#[test]
fn from_32_endpoints_on_two_random_ones_are_compared() {
    let cluster = cluster_of(40, policy(Balancing::LeastConnection));
    let mut one = Balancers::new(0, 1);
    endpoint(&cluster, 0).begin();
    let counts = spread(std::slice::from_mut(&mut one), &cluster, 4000);
    assert_eq!(counts.get(&1), None, "whatever the other of the two is, it is less loaded");
    assert_eq!(counts.len(), 39, "each other one gets something: {counts:?}");
}

#[test]
fn tried_endpoints_are_avoided_while_another_is_usable() {
    for (endpoints, balancing) in
        [(3, Balancing::RoundRobin), (3, Balancing::LeastConnection), (40, Balancing::LeastConnection)]
    {
        let cluster = cluster_of(endpoints, policy(balancing));
        let mut one = Balancers::new(0, 1);
        for _ in 0..100 {
            let mut tried = Vec::new();
            for attempt in 0..=3 {
                let context =
                    PickContext { now: Instant::now(), affinity: None, tried: &tried, copyable: false };
                let pick = one.pick(&cluster, &context).unwrap();
                let is_known = tried.contains(&pick.endpoint().id());
                assert_eq!(
                    is_known,
                    attempt == 3 && endpoints == 3,
                    "attempt {attempt} of {endpoints} endpoints"
                );
                tried.push(pick.endpoint().id());
            }
        }
    }
}

#[test]
fn a_request_counts_until_it_is_dropped_whether_or_not_it_was_recorded() {
    let cluster = cluster_of(1, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    let (cancelled, mut answered) = (pick(&mut one, &cluster).unwrap(), pick(&mut one, &cluster).unwrap());
    assert_eq!(endpoint(&cluster, 0).in_flight(), 2);
    answered.record(crate::cluster::Outcome::Answered(http::StatusCode::OK), Instant::now());
    assert_eq!(endpoint(&cluster, 0).in_flight(), 2, "the body is still to come");
    drop(answered);
    drop(cancelled);
    assert_eq!(endpoint(&cluster, 0).in_flight(), 0);
}

// === the usable set ===

struct Case {
    what: &'static str,
    endpoints: Vec<model::Endpoint>,
    failed: &'static [u8],
    expected: Result<Vec<u8>, NoEndpoint>,
}

#[test]
fn who_may_get_a_request() {
    let as_is = |number, readiness| model::Endpoint { readiness, ..said(number) };
    let preferred = |number, priority| model::Endpoint { priority, ..said(number) };
    let (draining, not_ready) = (Readiness::Draining, Readiness::NotReady);
    let cases = [
        Case {
            what: "ready ones, while there are some",
            endpoints: vec![said(1), said(2), as_is(3, draining), as_is(4, not_ready), weighted(5, 0)],
            failed: &[],
            expected: Ok(vec![1, 2]),
        },
        Case {
            what: "those that work",
            endpoints: vec![said(1), said(2), said(3)],
            failed: &[2],
            expected: Ok(vec![1, 3]),
        },
        Case {
            what: "those of the lowest priority value",
            endpoints: vec![preferred(1, 1), preferred(2, 0), preferred(3, 0), preferred(4, 2)],
            failed: &[],
            expected: Ok(vec![2, 3]),
        },
        Case {
            what: "the next priority, if the first has failed",
            endpoints: vec![preferred(1, 1), preferred(2, 0), preferred(3, 0), preferred(4, 2)],
            failed: &[2, 3],
            expected: Ok(vec![1]),
        },
        Case {
            what: "all ready ones, if none is known to work",
            endpoints: vec![preferred(1, 0), preferred(2, 1), as_is(3, draining)],
            failed: &[1, 2],
            expected: Ok(vec![1, 2]),
        },
        Case {
            what: "draining ones that work, if none is ready",
            endpoints: vec![as_is(1, draining), as_is(2, draining), as_is(3, not_ready)],
            failed: &[1],
            expected: Ok(vec![2]),
        },
        Case {
            what: "all draining ones, if none of them works",
            endpoints: vec![as_is(1, draining), as_is(3, not_ready), weighted(4, 0)],
            failed: &[1],
            expected: Ok(vec![1]),
        },
        Case {
            what: "nobody, if none is ready or draining",
            endpoints: vec![as_is(1, not_ready), weighted(2, 0)],
            failed: &[],
            expected: Err(NoEndpoint::NoneReady),
        },
        Case {
            what: "nobody, if there is none",
            endpoints: vec![],
            failed: &[],
            expected: Err(NoEndpoint::Empty),
        },
    ];
    for case in cases {
        for balancing in [Balancing::RoundRobin, Balancing::LeastConnection] {
            check(&case, balancing);
        }
    }
}

fn check(case: &Case, balancing: Balancing) {
    let cluster = cluster(case.endpoints.clone(), policy(balancing));
    let mut one = Balancers::new(0, 1);
    // A first pick, so that what follows has to be noticed.
    drop(pick(&mut one, &cluster));
    for at in cluster.state().endpoints.iter().filter(|at| case.failed.contains(&octet(at))) {
        at.set_check_failed(true);
        cluster.touch();
    }
    let picked =
        (0..20).map(|_| pick(&mut one, &cluster).map(|pick| number(&pick))).collect::<Result<Vec<_>, _>>();
    let picked = picked.map(|numbers| {
        let mut numbers = numbers;
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    });
    assert_eq!(picked, case.expected, "{balancing:?}: {}", case.what);

    let state = cluster.state();
    let told = verdicts(&state, Instant::now()).into_iter().zip(&state.endpoints);
    let told = told.filter(|((usable, _), _)| *usable).map(|(_, at)| octet(at)).collect::<Vec<_>>();
    assert_eq!(told, case.expected.clone().unwrap_or_default(), "explained: {}", case.what);
}

fn octet(endpoint: &Endpoint) -> u8 {
    match endpoint.address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}

// === slow start ===

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_takes_its_share_by_and_by() {
    let slow = ClusterPolicy { slow_start: Some(Duration::from_secs(100)), ..ClusterPolicy::default() };
    for balancing in [Balancing::RoundRobin, Balancing::LeastConnection] {
        let cluster = cluster_of(3, ClusterPolicy { balancing, ..slow.clone() });
        let mut one = workers(1);
        change(&cluster, (1..=4).map(said));
        let mut share = || held_share(&mut one[0], &cluster, 4);
        let first = share();
        advance(Duration::from_secs(50)).await;
        let half = share();
        advance(Duration::from_secs(50)).await;
        let full = share();
        assert!(
            first < 0.06 && (0.09..0.2).contains(&half) && (0.24..0.26).contains(&full),
            "{first} {half} {full}"
        );
    }
}

/// The share of one endpoint in 4,000 requests of which 400 run at a time.
fn held_share(one: &mut Balancers, cluster: &Arc<Cluster>, wanted: u8) -> f64 {
    let mut running = std::collections::VecDeque::new();
    let mut count = 0;
    for _ in 0..4000 {
        let pick = pick(one, cluster).unwrap();
        count += usize::from(number(&pick) == wanted);
        running.push_back(pick);
        if running.len() > 400 {
            running.pop_front();
        }
    }
    count as f64 / 4000.0
}

// === affinity ===

fn tied(balancers: &mut Balancers, cluster: &Arc<Cluster>, key: AffinityKey<'_>) -> Pick {
    balancers
        .pick(cluster, &PickContext { now: Instant::now(), affinity: Some(key), tried: &[], copyable: false })
        .unwrap()
}

fn client(number: u32) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0x0a09_0000 + number).into()
}

#[test]
fn a_client_stays_with_its_endpoint_and_only_those_of_one_that_left_move() {
    let five = cluster_of(5, ClusterPolicy::default());
    let (mut one, mut other) = (Balancers::new(0, 2), Balancers::new(1, 2));
    let homes = (0..1000)
        .map(|n| number(&tied(&mut one, &five, AffinityKey::ClientIp(client(n)))))
        .collect::<Vec<_>>();
    for endpoint in 1..=5 {
        let clients = homes.iter().filter(|&&home| home == endpoint).count();
        assert!((140..260).contains(&clients), "endpoint {endpoint} has {clients} of 1,000 clients");
    }
    // Another gateway, whose cluster was made on its own.
    let elsewhere = cluster_of(5, ClusterPolicy::default());
    for (n, home) in homes.iter().enumerate() {
        let pick = tied(&mut other, &elsewhere, AffinityKey::ClientIp(client(n as u32)));
        assert_eq!((number(&pick), pick.by_affinity()), (*home, true));
    }
    change(&five, [1, 2, 4, 5].map(said));
    for (n, home) in homes.iter().enumerate() {
        let now = number(&tied(&mut one, &five, AffinityKey::ClientIp(client(n as u32))));
        assert!(now == *home || *home == 3, "client {n} moved from {home} to {now}");
    }
}

#[test]
fn header_values_are_tied_by_weight() {
    let cluster = cluster([weighted(1, 1), weighted(2, 3), weighted(3, 0)], ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    let of_two = (0..4000).filter(|n| {
        let value = format!("tenant-{n}");
        number(&tied(&mut one, &cluster, AffinityKey::Header(value.as_bytes()))) == 2
    });
    let of_two = of_two.count();
    assert!((2850..3150).contains(&of_two), "{of_two} of 4,000");
}

#[test]
fn a_cookie_leads_to_its_endpoint_or_to_any_when_that_is_gone() {
    let cluster = cluster_of(4, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    let token = endpoint(&cluster, 2).affinity_token();
    for _ in 0..8 {
        let pick = tied(&mut one, &cluster, AffinityKey::Cookie(&token));
        assert_eq!((number(&pick), pick.by_affinity()), (3, true));
    }
    for unknown in ["", "+000000000000001", "0123456789abcdef", "ü"] {
        let picks = (0..4).map(|_| tied(&mut one, &cluster, AffinityKey::Cookie(unknown)));
        let mut numbers = picks.map(|pick| (number(&pick), pick.by_affinity())).collect::<Vec<_>>();
        numbers.sort_unstable();
        assert_eq!(
            numbers,
            [(1, false), (2, false), (3, false), (4, false)],
            "{unknown:?} is balanced as usual"
        );
    }
    endpoint(&cluster, 2).set_check_failed(true);
    cluster.touch();
    let pick = tied(&mut one, &cluster, AffinityKey::Cookie(&token));
    assert!(number(&pick) != 3 && !pick.by_affinity());
}
