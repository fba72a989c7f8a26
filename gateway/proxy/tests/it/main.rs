//! The whole proxy in one process, on loopback ports: hand-fed snapshots, real sockets at both ends. The upstreams are
//! played byte by byte by the tests, because most of what is tested is what happens when an upstream misbehaves.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are test code as well")]

mod harness;

mod connections;
mod drain;
mod endpoint_wire;
mod endpoints;
mod forwarding;
mod http2;
mod http2_frames;
mod listeners;
mod own_loop;
mod retries;
mod streaming;
mod targets;
mod telemetry;
mod timeouts;
mod tls;
