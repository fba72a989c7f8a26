//! Whether endpoints work: passive ejection by the answers to real requests, and active checks.

pub mod outlier;
pub mod prober;

pub use prober::Prober;
