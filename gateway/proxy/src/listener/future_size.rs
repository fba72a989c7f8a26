//! See [`crate::future_size`].

use std::rc::Rc;

use tokio::net::TcpStream;

use super::{Client, connection};
use crate::future_size::{assert_size, future_size};

#[test]
fn a_connection() {
    let serving = |(client, stream): (Rc<Client>, TcpStream)| connection::serve(client, stream);
    assert_size("the task of a client's connection", future_size(serving), 1040);
}
