//! The real binary, run as a user would run it: its answers, its messages, its end.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![allow(clippy::disallowed_types, reason = "the binary under test runs in real time")]

mod check;
mod gateway;
mod http;
mod quickstart;
mod run;
mod snapshot;
mod wrong;
