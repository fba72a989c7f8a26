//! Everything of Portolan that learns about the world.
//!
//! ```text
//! kube/ ──► translate/ ──► Sink ─┐
//!                                ├──► Store (one task) ──► watch::Receiver<Arc<Snapshot>>
//! file/ ──► translate/ ──► Sink ─┘      merge.rs           findings, source status
//! ```
//!
//! A [`Source`] reads objects in its own words, [`translate`] turns each into a neutral
//! [`Contribution`](portolan_model::Contribution), and the [`Store`] merges what all sources say into one immutable
//! [`Snapshot`](portolan_model::Snapshot) that the data path reads. A source that loses touch with its origin changes
//! how fresh the picture is, never what it shows.

pub mod file;
pub mod kube;
mod merge;
pub mod objects;
pub mod snapshot_file;
mod source;
mod store;
pub mod translate;

pub use source::{Change, Sink, Source};
pub use store::{Discovered, SourceStatus, Store};
