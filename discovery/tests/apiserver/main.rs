//! Objects written to a real API server, and the snapshot that comes of them.
//!
//! The source under test logs in with a token of the ServiceAccount of `deploy/base`, bound to its Role there and to
//! that of `deploy/namespace-access` in each test's namespace and to nothing else: a right that is missing in the
//! manifests fails a test.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]

mod addresses;
mod claims;
mod exposure;
mod hints;
mod outage;
mod ports;
mod readiness;
mod rights;
mod settings;
mod slices;
mod telling;
mod world;

#[test]
fn left_out_only_off_ci() {
    portolan_testbed::assert_not_left_out_on_ci();
}
