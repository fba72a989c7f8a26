//! No request fails while upstreams are replaced and while the API server is away: the short form of
//! `cargo xtask bench rollouts`. And what a gateway does that is restarted meanwhile.
#![allow(
    clippy::unwrap_used,
    reason = "the whole file is tests and what they share; a panic is how they fail"
)]
#![allow(clippy::print_stdout, reason = "the figures, for whoever runs it with --nocapture")]

#[allow(dead_code, reason = "shared: each user needs its own part of it")]
#[path = "../../benches/cluster/mod.rs"]
mod cluster;
mod restart;
#[path = "../../benches/rollouts/run.rs"]
mod run;

use std::sync::Mutex;
use std::time::Duration;

use portolan_testbed::ControlPlane;

/// They share one API server, which each of them takes away, and the gateway's addresses.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "needs a control plane: cargo xtask test --only binary"]
fn no_request_fails() {
    let _alone = ONE_AT_A_TIME.lock();
    let control_plane = ControlPlane::shared().unwrap();
    let outcome = run::Plan { rollouts: 5, outage: Duration::from_secs(10) }.run(&control_plane).unwrap();
    println!("{outcome}");
    let faults = outcome.faults();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
#[ignore = "needs a control plane: cargo xtask test --only binary"]
fn a_gateway_that_is_killed_while_the_api_server_is_away_serves_from_its_file_until_it_returns() {
    let _alone = ONE_AT_A_TIME.lock();
    restart::run(&ControlPlane::shared().unwrap()).unwrap();
}

#[test]
fn they_are_not_left_out_on_ci() {
    portolan_testbed::assert_not_left_out_on_ci();
}
