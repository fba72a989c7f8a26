//! What all sources say, merged into one picture.
//!
//! **The rule.** Every listener, route and cluster claims its id, and a route also claims each combination of a
//! listener role, a host and a match that it answers. Of those that claim the same, the oldest object holds the claim
//! (the earliest creation, then the order of kind, namespace and name, then of sources). A route that does not hold all
//! of its claims is left out whole, and its object gets a finding that names both. A claim is held by the oldest also
//! if that object's own route is left out for another claim: so the outcome depends on nothing but the set of objects,
//! and not on the order in which they came.
//!
//! **The cost.** Claims are indexed, so a change looks only at what it claims and at those who claim the same. A
//! change of endpoints touches no claim at all. The property test in `tests.rs` holds this against a plain rebuild.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use portolan_model::{
    Cluster, ClusterId, Contribution, Finding, Listener, ListenerId, ResourceRef, Route, RouteId,
};

use claims::{Claim, Claims, HolderId};

/// The three maps of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) listeners: OrdMap<ListenerId, Arc<Listener>>,
    pub(crate) routes: OrdMap<RouteId, Arc<Route>>,
    pub(crate) clusters: OrdMap<ClusterId, Arc<Cluster>>,
}

/// Everything said, and the picture that it makes.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    names: BTreeMap<(ResourceRef, usize), HolderId>,
    /// By [`HolderId`]; none are free places.
    holders: Vec<Option<Holder>>,
    free: Vec<HolderId>,
    claims: Claims,
    current: Picture,
    published: Picture,
    /// What may differ between the two.
    touched: Ids,
    /// Findings on claims that an object does not hold, of those that have any.
    conflicts: BTreeMap<HolderId, Vec<Finding>>,
    findings_changed: bool,
}

/// An object as one source said it.
#[derive(Debug)]
struct Holder {
    resource: ResourceRef,
    source: usize,
    said: Contribution,
}

#[derive(Debug, Default)]
struct Ids {
    listeners: BTreeSet<ListenerId>,
    routes: BTreeSet<RouteId>,
    clusters: BTreeSet<ClusterId>,
}

impl Merge {
    /// The object contributes this now. Returns whether that changes the picture.
    pub(crate) fn upsert(&mut self, source: usize, resource: ResourceRef, mut said: Contribution) -> bool {
        let name = (resource, source);
        let Some(&id) = self.names.get(&name) else { return self.insert(name, said) };
        let before = &self.holder(id).said;
        share_unchanged(&mut said, before);
        if said == *before {
            return false;
        }
        let (findings_differ, claims_same) = (said.findings != before.findings, claims_same(&said, before));
        self.findings_changed |= findings_differ;
        if claims_same {
            let clusters: Vec<_> = said.clusters.iter().map(|cluster| cluster.id.clone()).collect();
            self.holder_mut(id).said = said;
            return clusters
                .into_iter()
                .fold(false, |changed, cluster| changed | self.settle_cluster(cluster));
        }
        let mut affected = Affected::default();
        self.withdraw_claims(id, &mut affected);
        self.holder_mut(id).said = said;
        self.lay_claims(id, &mut affected);
        self.settle(affected)
    }

    /// The object contributes nothing any more. Returns whether that changes the picture.
    pub(crate) fn remove(&mut self, source: usize, resource: &ResourceRef) -> bool {
        let Some(id) = self.names.remove(&(resource.clone(), source)) else { return false };
        let mut affected = Affected::default();
        self.withdraw_claims(id, &mut affected);
        let holder = self.holders[id as usize].take().expect("a named holder is there");
        self.free.push(id);
        affected.holders.remove(&id);
        self.findings_changed |= !holder.said.findings.is_empty() | self.conflicts.remove(&id).is_some();
        self.settle(affected)
    }

    /// This is everything that the source has to say. Returns whether that changes the picture.
    pub(crate) fn replace_all(&mut self, source: usize, all: Vec<(ResourceRef, Contribution)>) -> bool {
        let said: BTreeSet<&ResourceRef> = all.iter().map(|(resource, _)| resource).collect();
        let gone = self.names.keys().filter(|(resource, of)| *of == source && !said.contains(resource));
        let gone: Vec<_> = gone.map(|(resource, _)| resource.clone()).collect();
        let removed = gone.iter().fold(false, |changed, resource| changed | self.remove(source, resource));
        all.into_iter()
            .fold(removed, |changed, (resource, said)| changed | self.upsert(source, resource, said))
    }

    /// The picture, if it differs from the one returned before. What is as it was keeps its `Arc`, even if it was
    /// another in between.
    pub(crate) fn publish(&mut self) -> Option<Picture> {
        let Ids { listeners, routes, clusters } = std::mem::take(&mut self.touched);
        let differs = restore_equal(&mut self.current.listeners, &self.published.listeners, listeners)
            | restore_equal(&mut self.current.routes, &self.published.routes, routes)
            | restore_equal(&mut self.current.clusters, &self.published.clusters, clusters);
        differs.then(|| {
            self.published = self.current.clone();
            self.published.clone()
        })
    }

    /// Takes these routes and clusters, with the listeners of now, for the picture that was published: the next one is
    /// measured against it.
    pub(crate) fn restore(
        &mut self,
        routes: OrdMap<RouteId, Arc<Route>>,
        clusters: OrdMap<ClusterId, Arc<Cluster>>,
    ) -> Picture {
        self.touched.listeners.clear();
        self.touched.routes.extend(routes.keys().cloned());
        self.touched.clusters.extend(clusters.keys().cloned());
        self.published = Picture { listeners: self.current.listeners.clone(), routes, clusters };
        self.published.clone()
    }

    /// Whether there may be other findings than when this was asked before.
    pub(crate) fn take_findings_changed(&mut self) -> bool {
        std::mem::take(&mut self.findings_changed)
    }

    /// All findings, sorted.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let said = self.holders.iter().flatten().flat_map(|holder| &holder.said.findings);
        let mut findings: Vec<_> = said.chain(self.conflicts.values().flatten()).cloned().collect();
        findings.sort();
        findings
    }

    /// How many objects contribute something.
    pub(crate) fn objects(&self) -> usize {
        self.names.len()
    }

    fn insert(&mut self, name: (ResourceRef, usize), said: Contribution) -> bool {
        self.findings_changed |= !said.findings.is_empty();
        let holder = Some(Holder { resource: name.0.clone(), source: name.1, said });
        let id = match self.free.pop() {
            Some(id) => {
                self.holders[id as usize] = holder;
                id
            }
            None => {
                self.holders.push(holder);
                HolderId::try_from(self.holders.len() - 1)
                    .expect("objects fit into memory, and so into 32 bits")
            }
        };
        self.names.insert(name, id);
        let mut affected = Affected::default();
        self.lay_claims(id, &mut affected);
        self.settle(affected)
    }

    fn holder(&self, id: HolderId) -> &Holder {
        self.holders[id as usize].as_ref().expect("the index names holders that are there")
    }

    fn holder_mut(&mut self, id: HolderId) -> &mut Holder {
        self.holders[id as usize].as_mut().expect("the index names holders that are there")
    }

    fn lay_claims(&mut self, id: HolderId, affected: &mut Affected) {
        let Self { holders, claims, .. } = self;
        let holder =
            |id: HolderId| holders[id as usize].as_ref().expect("the index names holders that are there");
        let order = |id: HolderId| (holder(id).said.created, &holder(id).resource, holder(id).source);
        for claim in claims::of_contribution(&holder(id).said) {
            affected.holders.extend(claims.lay(&claim, id, order));
        }
        affected.add(id, &holder(id).said);
    }

    fn withdraw_claims(&mut self, id: HolderId, affected: &mut Affected) {
        let Self { holders, claims, .. } = self;
        let holder = holders[id as usize].as_ref().expect("the index names holders that are there");
        for claim in claims::of_contribution(&holder.said) {
            affected.holders.extend(claims.withdraw(&claim, id));
        }
        affected.add(id, &holder.said);
    }

    /// Brings everything in line that depends on claims which have been laid or withdrawn.
    fn settle(&mut self, affected: Affected) -> bool {
        let Affected { holders, mut ids } = affected;
        for &id in &holders {
            ids.add(&self.holder(id).said);
            self.settle_conflicts(id);
        }
        let mut changed = false;
        for id in ids.listeners {
            let shown =
                self.shown(&Claim::Listener(&id), |said| said.listeners.iter().find(|it| it.id == id));
            changed |= put(&mut self.current.listeners, &mut self.touched.listeners, id, shown);
        }
        for id in ids.routes {
            let shown = self.shown(&Claim::Route(&id), |said| said.routes.iter().find(|it| it.id == id));
            changed |= put(&mut self.current.routes, &mut self.touched.routes, id, shown);
        }
        for id in ids.clusters {
            changed |= self.settle_cluster(id);
        }
        changed
    }

    fn settle_cluster(&mut self, id: ClusterId) -> bool {
        let shown = self.shown(&Claim::Cluster(&id), |said| said.clusters.iter().find(|it| it.id == id));
        put(&mut self.current.clusters, &mut self.touched.clusters, id, shown)
    }

    /// What the holder of the claim on an id says of it, unless it is left out.
    fn shown<T: Claiming>(
        &self,
        claim: &Claim<'_>,
        find: impl Fn(&Contribution) -> Option<&Arc<T>>,
    ) -> Option<Arc<T>> {
        let id = self.claims.holder(claim)?;
        let part = find(&self.holder(id).said)?;
        let holds = |claim: Claim<'_>| self.claims.holder(&claim) == Some(id);
        part.claims().into_iter().all(holds).then(|| part.clone())
    }

    fn settle_conflicts(&mut self, id: HolderId) {
        let findings = self.conflicts_of(id);
        let differs = match self.conflicts.get(&id) {
            Some(before) => *before != findings,
            None => !findings.is_empty(),
        };
        if differs {
            self.findings_changed = true;
            match findings.is_empty() {
                true => self.conflicts.remove(&id),
                false => self.conflicts.insert(id, findings),
            };
        }
    }

    /// One finding for each part of the object that is left out.
    fn conflicts_of(&self, id: HolderId) -> Vec<Finding> {
        let Holder { resource, said, .. } = self.holder(id);
        let mut findings = Vec::new();
        for claims in claims::by_part(said) {
            let lost = claims.iter().find_map(|claim| {
                let holder = self.claims.holder(claim).filter(|holder| *holder != id)?;
                Some((claim, self.holder(holder)))
            });
            let Some((claim, holder)) = lost else { continue };
            if holder.resource == *resource {
                // Every part would say the same.
                let message = "another source has this object too; what that source says of it counts";
                return vec![Finding::warning(resource, "metadata.name", "DuplicateObject", message)];
            }
            let message = format!(
                "{claim} belongs to {}, which is older or, if both are of one age, goes first by its name; what \
                 {resource} asks for there is left out; change one of the two",
                holder.resource
            );
            findings.push(Finding::error(resource, claim.to_string(), "AlreadyClaimed", message));
        }
        findings
    }
}

/// Who and what may look different after a change of claims.
#[derive(Default)]
struct Affected {
    holders: BTreeSet<HolderId>,
    ids: Ids,
}

impl Affected {
    fn add(&mut self, id: HolderId, said: &Contribution) {
        self.holders.insert(id);
        self.ids.add(said);
    }
}

impl Ids {
    fn add(&mut self, said: &Contribution) {
        self.listeners.extend(said.listeners.iter().map(|it| it.id.clone()));
        self.routes.extend(said.routes.iter().map(|it| it.id.clone()));
        self.clusters.extend(said.clusters.iter().map(|it| it.id.clone()));
    }
}

/// A part of a contribution and everything that it must hold to be shown.
trait Claiming {
    fn claims(&self) -> Vec<Claim<'_>>;
}

impl Claiming for Listener {
    fn claims(&self) -> Vec<Claim<'_>> {
        vec![Claim::Listener(&self.id)]
    }
}

impl Claiming for Route {
    fn claims(&self) -> Vec<Claim<'_>> {
        claims::of_route(self)
    }
}

impl Claiming for Cluster {
    fn claims(&self) -> Vec<Claim<'_>> {
        vec![Claim::Cluster(&self.id)]
    }
}

/// Shows the part under its id, or nothing. Returns whether that is a change.
fn put<K: Ord + Clone, T: Eq>(
    map: &mut OrdMap<K, Arc<T>>,
    touched: &mut BTreeSet<K>,
    id: K,
    shown: Option<Arc<T>>,
) -> bool {
    if map.get(&id) == shown.as_ref() {
        return false;
    }
    touched.insert(id.clone());
    match shown {
        Some(part) => map.insert(id, part),
        None => map.remove(&id),
    };
    true
}

/// Gives back its `Arc` to what is as it was published. Returns whether anything is not.
fn restore_equal<K: Ord + Clone, T: Eq>(
    current: &mut OrdMap<K, Arc<T>>,
    published: &OrdMap<K, Arc<T>>,
    touched: BTreeSet<K>,
) -> bool {
    let mut differs = false;
    for id in touched {
        match (current.get(&id), published.get(&id)) {
            (Some(now), Some(before)) if now == before => {
                if !Arc::ptr_eq(now, before) {
                    current.insert(id, before.clone());
                }
            }
            (None, None) => {}
            _ => differs = true,
        }
    }
    differs
}

/// Lets `said` share with `before` what is equal, so that readers see by the pointer that it did not change.
fn share_unchanged(said: &mut Contribution, before: &Contribution) {
    share(&mut said.listeners, &before.listeners, |it| &it.id);
    share(&mut said.routes, &before.routes, |it| &it.id);
    share(&mut said.clusters, &before.clusters, |it| &it.id);
    for cluster in &mut said.clusters {
        let Some(before) = before.clusters.iter().find(|it| it.id == cluster.id) else { continue };
        if Arc::ptr_eq(cluster, before) {
            continue;
        }
        let cluster = Arc::make_mut(cluster);
        if cluster.endpoints == before.endpoints {
            cluster.endpoints = before.endpoints.clone();
        }
        if cluster.policy == before.policy {
            cluster.policy = before.policy.clone();
        }
    }
}

fn share<T: Eq, K: Eq>(said: &mut [Arc<T>], before: &[Arc<T>], id: impl Fn(&T) -> &K) {
    for part in said {
        if let Some(same) = before.iter().find(|it| id(it) == id(part) && *it == part) {
            *part = same.clone();
        }
    }
}

/// Whether both lay the same claims, in the same order of age. Equal parts share their `Arc` here.
fn claims_same(said: &Contribution, before: &Contribution) -> bool {
    fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    }
    said.created == before.created
        && same(&said.listeners, &before.listeners)
        && same(&said.routes, &before.routes)
        && said.clusters.iter().map(|it| &it.id).eq(before.clusters.iter().map(|it| &it.id))
}
