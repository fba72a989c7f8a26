//! See [`crate::future_size`].

use std::rc::Rc;

use tokio::net::TcpStream;

use super::{Client, connection};
use crate::future_size::{assert_size, future_size};

/// Most of it is the future that forwards a request: kept in place, so that a request costs no memory of its own.
#[test]
fn a_connection() {
    let serving = |(client, stream): (Rc<Client>, TcpStream)| connection::serve(client, stream);
    assert_size("the task of a client's connection", future_size(serving), 4100);
}
