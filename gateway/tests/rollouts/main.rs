//! No request fails while upstreams are replaced and while the API server is away: the short form of
//! `cargo xtask bench rollouts`.
#![allow(
    clippy::unwrap_used,
    reason = "the whole file is tests and what they share; a panic is how they fail"
)]
#![allow(clippy::print_stdout, reason = "the figures, for whoever runs it with --nocapture")]

#[allow(dead_code, reason = "shared: each user needs its own part of it")]
#[path = "../../benches/cluster/mod.rs"]
mod cluster;
#[path = "../../benches/rollouts/run.rs"]
mod run;

use std::time::Duration;

use portolan_testbed::ControlPlane;

#[test]
#[ignore = "needs a control plane: cargo xtask test --only binary"]
fn no_request_fails() {
    let control_plane = ControlPlane::shared().unwrap();
    let outcome = run::Plan { rollouts: 5, outage: Duration::from_secs(10) }.run(&control_plane).unwrap();
    println!("{outcome}");
    let faults = outcome.faults();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn they_are_not_left_out_on_ci() {
    portolan_testbed::assert_not_left_out_on_ci();
}
