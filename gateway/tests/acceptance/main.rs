//! What the gateway promises, measured: the real binary on a folder of manifests, real upstreams, and the load
//! generator.
#![allow(
    clippy::unwrap_used,
    reason = "the whole file is tests and what they share; a panic is how they fail"
)]
#![allow(clippy::print_stdout, reason = "the figures, for whoever runs it with --nocapture")]

mod gateway;
mod spread;
