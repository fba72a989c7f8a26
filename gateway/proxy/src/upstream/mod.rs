//! The way to an endpoint, split by decision: which connection ([`pool`], [`connect`]), what became of one try
//! ([`attempt`]), and whether there is another ([`retry`]).

mod attempt;
mod connect;
#[cfg(test)]
mod future_size;
mod pool;
mod retry;
mod trial;

pub(crate) use pool::{Checkout, Pool};
pub(crate) use retry::{Sent, send};
