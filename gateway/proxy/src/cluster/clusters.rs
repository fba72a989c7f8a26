//! All clusters at work, kept in step with the snapshots by the publisher.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use portolan_model::{self as model, ClusterId, Snapshot};
use tokio::time::Instant;

use super::{Cluster, Endpoint};

/// The clusters of the present snapshot, by id. Cloning is cheap: the map shares its structure.
#[derive(Debug, Clone, Default)]
pub struct Clusters {
    by_id: OrdMap<ClusterId, Arc<Cluster>>,
    /// Ids that came or went in the last step: rules that name them have to be compiled anew.
    came_or_went: BTreeSet<ClusterId>,
}

/// What a step took away; to be retired once the table without it is in use.
#[derive(Debug, Default)]
pub struct Departed {
    clusters: Vec<Arc<Cluster>>,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Clusters {
    /// Follows from `before` to `after`: creates clusters that came, swaps the state of those that changed once each,
    /// and takes out those that went. What did not change is not looked at.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot, now: Instant) -> Departed {
        let mut departed = Departed::default();
        self.came_or_went.clear();
        for change in before.clusters.diff(&after.clusters) {
            match change {
                DiffItem::Add(_, said) => self.come(said, after.generation, now),
                DiffItem::Update { new: (_, said), .. } => {
                    self.change(said, after.generation, now, &mut departed);
                }
                DiffItem::Remove(id, _) => self.go(id, &mut departed),
            }
        }
        departed
    }

    /// The cluster of this id.
    pub fn find(&self, id: &ClusterId) -> Option<&Arc<Cluster>> {
        self.by_id.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.by_id.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn came_or_went(&self) -> &BTreeSet<ClusterId> {
        &self.came_or_went
    }

    fn come(&mut self, said: &Arc<model::Cluster>, generation: u64, now: Instant) {
        let cluster = Arc::new(Cluster::new(said, generation, now));
        self.by_id.insert(said.id.clone(), cluster);
        self.came_or_went.insert(said.id.clone());
    }

    fn change(&mut self, said: &Arc<model::Cluster>, generation: u64, now: Instant, departed: &mut Departed) {
        match self.by_id.get(&said.id) {
            Some(cluster) => {
                let state = cluster.state().next(said, generation, now, &mut departed.endpoints);
                cluster.replace(Arc::new(state));
            }
            None => self.come(said, generation, now),
        }
    }

    fn go(&mut self, id: &ClusterId, departed: &mut Departed) {
        if let Some(cluster) = self.by_id.remove(id) {
            departed.endpoints.extend(cluster.state().endpoints.iter().map(Arc::clone));
            departed.clusters.push(cluster);
            self.came_or_went.insert(id.clone());
        }
    }
}

// === impl Departed ===

impl Departed {
    /// Whether nothing went.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.endpoints.is_empty()
    }

    /// Marks everything that went, for pools and balancers to let go of it.
    pub fn retire(self) {
        for endpoint in &self.endpoints {
            endpoint.retire();
        }
        for cluster in &self.clusters {
            cluster.retire();
        }
    }
}
