//! The Kubernetes source against a scripted API server, for the faults that a real one cannot be made to show.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod api_server;
mod config_map;
mod events;
mod faults;
mod gateway;
mod lease;
mod malformed;
mod rights;
mod watching;
