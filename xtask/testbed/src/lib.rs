//! A real Kubernetes control plane for tests and for a developer's desk.
//!
//! ```text
//! Programs::build()      etcd, kube-apiserver, kube-controller-manager, kubectl: from pinned Go modules,
//!                        once, into the user's cache folder
//! Netns::create(name)    a network namespace with 10.0.0.0/8 on its `lo` and no way out
//! ControlPlane::start()  certificates, etcd, API server, on request the controllers; ready when it returns
//! ```
//!
//! Tests that need a control plane carry `#[ignore = "needs a control plane: cargo xtask test --only …"]`, so that
//! a plain `cargo test` names them as left out. `cargo xtask test` starts a control plane in a namespace of its
//! own for each such test binary, runs the binary inside, and tells it by an environment variable where its
//! control plane is: [`ControlPlane::shared`]. A test that has to kill its API server starts a second control
//! plane beside it with [`ControlPlane::start`].

mod cache;
mod certificates;
mod control_plane;
mod daemon;
mod dockerfile;
mod figures;
mod image;
mod netns;
mod node;
mod programs;

pub use cache::cache_folder;
pub use control_plane::{
    ControlPlane, Options, SHARED, assert_not_left_out_on_ci, remove_undescribed, sweep,
};
pub use dockerfile::image_build_variables;
pub use figures::{Figure, Figures};
pub use image::Image;
pub use netns::{Netns, is_root};
pub use node::{check_node_requirements, missing_packages};
pub use programs::{NodePrograms, Programs};
