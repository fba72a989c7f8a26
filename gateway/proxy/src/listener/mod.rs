//! Where requests come in: sockets opened and closed to follow the table ([`reconcile`], [`bind`]), connections taken
//! from them ([`accept`]), and each served, watched and closed ([`connection`], [`client`], [`closing`]), in the clear or over TLS
//! ([`stream`], [`handshake`]). Ordinary requests in HTTP/1.1 are served by a loop of our own ([`http1`], over [`wire`] and
//! [`output`]), the others by hyper behind a [`screen`], and HTTP/2 by [`http2`].

mod accept;
mod bind;
mod client;
mod closing;
mod connection;
mod date;
#[cfg(test)]
mod future_size;
mod handshake;
mod http1;
mod http2;
mod output;
mod reconcile;
mod screen;
mod stream;
mod wire;

pub(crate) use accept::{Listening, accept};
pub use bind::probe;
pub(crate) use client::Client;
pub(crate) use connection::{Builder, builder};
pub(crate) use reconcile::Reconciler;
pub use reconcile::{ListenerState, ListenerStatus};
pub(crate) use wire::WireBody;
