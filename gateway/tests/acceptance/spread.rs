//! How requests are spread over the endpoints of a Service.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_loadtest::load::{Load, Pace, Report};
use portolan_loadtest::upstream::{RunningUpstream, Upstream};

use crate::gateway::Gateway;

/// One test at a time measures, so that none measures the others.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn upstreams() -> Vec<RunningUpstream> {
    (1..=4).map(|number| Upstream::named(format!("orders-{number}")).start().unwrap()).collect()
}

fn run(gateway: &Gateway, load: Load) -> Report {
    let load = Load { timeout: Duration::from_secs(10), ..load };
    let report = load.start().unwrap().wait().unwrap();
    println!("{report}");
    assert_eq!(report.failed, 0, "at {}: {report}", gateway.edge());
    report
}

#[track_caller]
fn assert_even(report: &Report) {
    assert_eq!(report.answered, 10_000);
    for number in 1..=4 {
        let count = report.upstreams[&format!("orders-{number}")];
        assert!(
            (2450..=2550).contains(&count),
            "orders-{number} got {count} of 10,000, 2 % off at most: {report}"
        );
    }
}

/// Two workers, each with connections of its own: the turns of both add up to an even spread.
#[test]
fn round_robin_is_even_over_workers() {
    let _alone = alone();
    let upstreams = upstreams();
    let gateway = Gateway::start(&[], &upstreams);
    let load = Load { count: Some(10_000), ..Load::to(gateway.edge(), "/orders/7") };
    // As fast as it goes on kept connections; then at a rate, some on new connections, some with a body.
    assert_even(&run(&gateway, Load { pace: Pace::Closed, connections: 16, ..load.clone() }));
    let mixed = Load { pace: Pace::Open { rate: 2000.0 }, connections: 64, new_connections: 0.2, ..load };
    assert_even(&run(&gateway, mixed.with_posts(0.1, "an order")));
}

#[test]
fn least_connection_spares_a_slow_endpoint() {
    let _alone = alone();
    let upstreams = upstreams();
    for upstream in &upstreams {
        upstream.switches().set_latency(Duration::from_millis(10));
    }
    upstreams[0].switches().set_latency(Duration::from_millis(100));
    let measure = |balance| {
        let gateway = Gateway::start(&[("portolan.dev/balance", balance)], &upstreams);
        let pace = Pace::Open { rate: 1000.0 };
        let load =
            Load { pace, connections: 128, count: Some(5000), ..Load::to(gateway.edge(), "/orders/7") };
        let report = run(&gateway, load);
        let share = report.upstreams.get("orders-1").copied().unwrap_or(0) as f64 / report.answered as f64;
        (share, report.latency.mean)
    };
    let (even_share, even_mean) = measure("round-robin");
    let (share, mean) = measure("least-connection");
    println!("round robin: {:.1} %, mean {even_mean:?}", even_share * 100.0);
    println!("least connection: {:.1} %, mean {mean:?}", share * 100.0);
    assert!((0.245..=0.255).contains(&even_share), "round robin sends a quarter of them there: {even_share}");
    assert!(share <= 0.08, "least connection sends at most 8 % of them there: {share}");
    assert!(mean <= even_mean / 2, "the mean latency is at most half: {mean:?} against {even_mean:?}");
}
