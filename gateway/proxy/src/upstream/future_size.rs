//! See [`crate::future_size`].

use std::rc::Rc;
use std::sync::Arc;

use super::attempt::attempt;
use super::retry::send;
use crate::cluster::{Cluster, Pick};
use crate::future_size::{assert_size, future_size};
use crate::http::exchange::Exchange;
use crate::http::outbound::Outbound;

#[test]
fn all_attempts() {
    let sending =
        |(exchange, cluster, parts): (&'static Rc<Exchange>, &'static Arc<Cluster>, &'static Outbound)| {
            send(exchange, cluster, None, parts)
        };
    assert_size("all attempts of a request", future_size(sending), 1384);
}

#[test]
fn one_attempt() {
    let attempting = |(exchange, pick, parts): (&'static Exchange, &'static Pick, &'static Outbound)| {
        attempt(exchange, pick, parts, true, false)
    };
    assert_size("one attempt of a request", future_size(attempting), 1024);
}
