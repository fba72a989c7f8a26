//! Whether endpoints work: passive ejection by the answers to real requests, and active checks.

mod check;
pub(crate) mod outlier;
pub mod prober;

pub use prober::Prober;
