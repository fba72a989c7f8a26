//! See [`crate::future_size`].

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;

use super::attempt::attempt;
use super::retry::send;
use crate::cluster::{Cluster, Pick};
use crate::future_size::{assert_size, future_size};
use crate::http::exchange::Exchange;

#[test]
fn all_attempts() {
    let sending = |(exchange, cluster, parts): (&'static Rc<Exchange>, &'static Arc<Cluster>, Parts)| {
        send(exchange, cluster, None, parts)
    };
    assert_size("all attempts of a request", future_size(sending), 1780);
}

#[test]
fn one_attempt() {
    let attempting = |(exchange, pick, parts): (&'static Exchange, &'static Pick, &'static Parts)| {
        attempt(exchange, pick, parts, true, false)
    };
    assert_size("one attempt of a request", future_size(attempting), 984);
}
