//! See [`crate::future_size`].

use std::rc::Rc;

use tokio::net::TcpStream;

use super::http2::answer_all;
use super::{Client, connection};
use crate::future_size::{assert_size, future_size};
use crate::http2::Shared;

/// Most of it is the future that forwards a request: kept in place, so that a request costs no memory of its own.
#[test]
fn a_connection() {
    let serving = |(client, stream): (Rc<Client>, TcpStream)| connection::serve(client, stream);
    assert_size("the task of a client's connection", future_size(serving), 4100);
}

/// There is one for each stream that is open at a time.
#[test]
fn a_place_of_a_stream() {
    let answering =
        |(client, connection, inbox): (Rc<Client>, Shared, _)| answer_all(client, connection, inbox);
    assert_size("what answers the requests of a place", future_size(answering), 3300);
}
