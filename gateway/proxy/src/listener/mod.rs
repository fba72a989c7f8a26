//! Where requests come in: sockets opened and closed to follow the table ([`reconcile`], [`bind`]), connections taken
//! from them ([`accept`]), and each served and watched ([`connection`], [`http2`], [`client`]), in the clear or over TLS
//! ([`stream`], [`handshake`], [`preface`]).

mod accept;
mod bind;
mod client;
mod connection;
#[cfg(test)]
mod future_size;
mod handshake;
mod http2;
mod preface;
mod reconcile;
mod screen;
mod stream;

pub(crate) use accept::{Listening, accept};
pub use bind::probe;
pub(crate) use client::Client;
pub(crate) use connection::{Builder, builder};
pub(crate) use reconcile::Reconciler;
pub use reconcile::{ListenerState, ListenerStatus};
