//! Under construction.

pub mod cluster;
pub mod health;
pub mod table;
