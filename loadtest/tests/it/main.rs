//! The generator and the upstreams against real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "the whole file is tests and what they share; a panic is how they fail"
)]

mod backend;
mod failures;
mod generator;
mod measure;
mod peers;
mod scenario;
mod scripted;
mod secure;
mod upstream;
