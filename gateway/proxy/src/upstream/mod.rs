//! The way to an endpoint, split by decision: which connection ([`pool`], [`connect`]), how bytes go
//! over it ([`leg`], and to its [`socket`]), what became of one try ([`attempt`]), and whether there is another ([`retry`]).

mod attempt;
mod buffers;
mod connect;
mod connection;
#[cfg(test)]
mod future_size;
mod leg;
mod pool;
mod retry;
mod socket;
mod trial;

pub(crate) use buffers::Buffers;
pub(crate) use connection::Connection;
pub(crate) use pool::Pool;
pub(crate) use retry::{Sent, send};
