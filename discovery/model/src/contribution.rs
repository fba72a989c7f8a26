//! What one object contributes to the whole.

use std::sync::Arc;

use crate::{Cluster, Finding, Listener, Route};

/// Everything that a source makes of one object. A later contribution for the same object replaces it whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contribution {
    /// When the object was created, in seconds since the epoch; decides between objects that claim the same.
    pub created: i64,
    /// Listeners that it opens.
    pub listeners: Vec<Arc<Listener>>,
    /// Routes that it asks for.
    pub routes: Vec<Arc<Route>>,
    /// Clusters that it describes.
    pub clusters: Vec<Arc<Cluster>>,
    /// What in it could not be honoured.
    pub findings: Vec<Finding>,
}
