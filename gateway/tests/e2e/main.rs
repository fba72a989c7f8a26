//! The life of an application on a real cluster, step by step, with Portolan in front of it: everything deployed by the
//! manifests of `deploy/`, traffic through the NodePort.
//!
//! `cargo xtask test --only e2e` runs the short form, `cargo xtask walk` the full numbers. The steps share one cluster
//! and run one after the other; each removes what it made.
//!
//! ```text
//! step.rs      one step: its figures, what it made, what to print when it fails
//! cluster.rs   the node, its images, Portolan on it            app.rs      sample applications
//! gateway.rs   Portolan's pods and what they show              traffic.rs  load, and what came of each request
//! watch.rs     changes of objects as they happen               wait.rs     for what nobody tells
//! caller.rs    a pod with curl                            apply.rs    `kubectl apply`, and when it was acknowledged
//! plan.rs      short or full numbers                           figures.rs  what is printed and handed on
//! ```
#![allow(
    clippy::unwrap_used,
    reason = "the whole file is tests and what they share; a panic is how they fail"
)]
#![allow(clippy::print_stdout, reason = "the figures, for whoever runs it with --nocapture")]
#![allow(dead_code, reason = "a kit: each step takes its own part of it")]

mod app;
mod apply;
mod caller;
mod cluster;
mod figures;
mod gateway;
#[path = "../binary/http.rs"]
mod http;
mod kept;
mod plan;
mod step;
mod step_01_create_and_expose;
mod step_02_scale;
mod step_03_rollouts;
mod step_04_self_healing;
mod step_05_never_ready;
mod step_06_all_terminating;
mod step_07_settings;
mod step_08_gateway;
mod step_09_control_plane_away;
mod step_10_rights;
mod step_11_callers_inside;
mod traffic;
mod wait;
mod watch;

#[test]
fn they_are_not_left_out_on_ci() {
    portolan_testbed::assert_not_left_out_on_ci();
}
