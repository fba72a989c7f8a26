//! The choice of an endpoint, one set of balancers per worker.
//!
//! Problem: each request needs a choice that is fair over all workers, follows every change at once and costs next to
//! nothing. Choice: a worker keeps for each cluster that it has requests for a usable set and a schedule, rebuilt only
//! when the cluster's epoch moved; a pick in between is a hash look-up, an atomic load and a step of a cursor.
//! Workers do not talk: each walks the whole schedule evenly from a start of its own, so their sum is even, too.

mod affinity;
mod least_connection;
mod round_robin;
mod schedule;
mod usable;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use portolan_model::{Balancing, ClusterPolicy};
use tokio::time::Instant;

use self::schedule::Schedule;
use self::usable::Usable;
use super::budget::Budget;
use super::pick::Held;
use super::{Cluster, NoEndpoint, Pick, PickContext, Trial};

pub(crate) use affinity::stable_hash;
pub(crate) use usable::verdicts;

/// The balancers of one worker, one for each cluster that it has had requests for. Not shared: no locks.
#[derive(Debug)]
pub struct Balancers {
    worker: usize,
    workers: usize,
    random: fastrand::Rng,
    by_cluster: foldhash::HashMap<u64, Balancer>,
}

#[derive(Debug)]
struct Balancer {
    desk: Rc<Desk>,
    epoch: u64,
    usable: Usable,
    schedule: Schedule,
    budget: Budget,
}

/// What every pick of one cluster state has in common. A worker's own, so that a clone writes nothing that is shared.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) policy: Arc<ClusterPolicy>,
}

/// What a way of balancing needs to choose a seat.
struct Choice<'a> {
    usable: &'a Usable,
    tried: &'a [u64],
    now: Instant,
}

impl Balancers {
    /// The balancers of worker number `worker` (from 0) of `workers`.
    pub fn new(worker: usize, workers: usize) -> Self {
        Self {
            worker,
            workers: workers.max(1),
            random: fastrand::Rng::new(),
            by_cluster: foldhash::HashMap::default(),
        }
    }

    /// Chooses an endpoint of `cluster`. A choice with no tried endpoints counts as a request of its retry budget.
    ///
    /// # Errors
    /// No endpoint is ready or draining.
    pub fn pick(&mut self, cluster: &Arc<Cluster>, context: &PickContext<'_>) -> Result<Pick, NoEndpoint> {
        let epoch = cluster.epoch();
        let (worker, workers) = (self.worker, self.workers);
        let balancer = self
            .by_cluster
            .entry(cluster.uid())
            .or_insert_with(|| Balancer::new(cluster, epoch, worker, workers, context.now));
        if balancer.epoch != epoch {
            balancer.refresh(epoch, context.now);
        }
        if context.tried.is_empty() {
            balancer.budget.request(context.now);
        }
        balancer.pick(context, &mut self.random)
    }

    /// The policy by which this worker last chose an endpoint of `cluster`; none before the first choice.
    pub fn policy(&self, cluster: &Cluster) -> Option<&Arc<ClusterPolicy>> {
        self.by_cluster.get(&cluster.uid()).map(|balancer| &balancer.desk.policy)
    }

    /// Whether one more retry of `cluster`'s requests is within its budget; if so, it is taken from it.
    pub fn allow_retry(&mut self, cluster: &Arc<Cluster>, now: Instant) -> bool {
        let workers = self.workers;
        self.by_cluster
            .get_mut(&cluster.uid())
            .is_some_and(|balancer| balancer.budget.allow_retry(&balancer.desk.policy.retry, workers, now))
    }

    /// Lets go of clusters that are in no snapshot any more. To be called now and then, as after each new table.
    pub fn sweep(&mut self) {
        self.by_cluster.retain(|_, balancer| !balancer.desk.cluster.is_retired());
    }
}

// === impl Balancer ===

impl Balancer {
    fn new(cluster: &Arc<Cluster>, epoch: u64, worker: usize, workers: usize, now: Instant) -> Self {
        let state = cluster.state();
        let desk = Desk { cluster: Arc::clone(cluster), policy: Arc::clone(&state.policy) };
        let usable = Usable::of(state, now);
        let schedule = Schedule::starting(&usable, cluster.phase(), worker, workers);
        Self { desk: Rc::new(desk), epoch, usable, schedule, budget: Budget::new(now) }
    }

    /// Takes over a new state or new health. `epoch` was read before, so a change in between is seen by the next pick.
    fn refresh(&mut self, epoch: u64, now: Instant) {
        let state = self.desk.cluster.state();
        if !Arc::ptr_eq(&self.desk.policy, &state.policy) {
            let cluster = Arc::clone(&self.desk.cluster);
            self.desk = Rc::new(Desk { cluster, policy: Arc::clone(&state.policy) });
        }
        let usable = Usable::of(state, now);
        self.schedule.follow(&self.usable, &usable);
        self.usable = usable;
        self.epoch = epoch;
    }

    fn pick(&mut self, context: &PickContext<'_>, random: &mut fastrand::Rng) -> Result<Pick, NoEndpoint> {
        match self.on_trial(context) {
            Some(trial) if context.copyable && !self.usable.is_last_resort() => {
                self.pick_usable(context, random).map(|pick| pick.with_trial(trial))
            }
            Some(trial) => Ok(trial),
            None => self.pick_usable(context, random),
        }
    }

    /// An endpoint whose ejection is over, for this request or a copy of it.
    fn on_trial(&self, context: &PickContext<'_>) -> Option<Pick> {
        let endpoint = Held(Arc::clone(self.usable.claim_trial(context)?));
        Some(Pick::new(Rc::new(endpoint), &self.desk, context.now, Trial::Probe, context.affinity.is_some()))
    }

    fn pick_usable(
        &mut self,
        context: &PickContext<'_>,
        random: &mut fastrand::Rng,
    ) -> Result<Pick, NoEndpoint> {
        let now = context.now;
        if let Some(reason) = self.usable.nobody() {
            return Err(reason);
        }
        let trial = if self.usable.is_last_resort() { Trial::LastResort } else { Trial::No };
        let choice = Choice { usable: &self.usable, tried: context.tried, now };
        if let Some(seat) = context.affinity.and_then(|key| affinity::choose(&choice, key)) {
            return Ok(Pick::new(self.usable.hold(seat), &self.desk, now, trial, true));
        }
        let seat = match self.desk.policy.balancing {
            Balancing::RoundRobin => round_robin::choose(&choice, &mut self.schedule, random),
            Balancing::LeastConnection => least_connection::choose(&choice, &mut self.schedule, random),
        };
        Ok(Pick::new(self.usable.hold(seat), &self.desk, now, trial, false))
    }
}

// === impl Choice ===

impl Choice<'_> {
    /// Whether a seat is to be avoided because this request was there before. False once every seat was tried.
    fn is_tried(&self, seat: usize) -> bool {
        !self.tried.is_empty() && self.tried.contains(&self.usable.seated(seat).id()) && !self.all_tried()
    }

    fn all_tried(&self) -> bool {
        self.tried.len() >= self.usable.seats().len()
            && self.usable.seats().iter().all(|seat| self.tried.contains(&self.usable.endpoint(seat).id()))
    }

    /// Whether a seat takes this request, given how far its slow start is.
    fn is_warm(&self, seat: usize, random: &mut fastrand::Rng) -> bool {
        let warmth = self.warmth(seat);
        warmth >= 1.0 || random.f32() < warmth
    }

    fn warmth(&self, seat: usize) -> f32 {
        match self.usable.warming() {
            None => 1.0,
            Some(span) => self.usable.seated(seat).warmth(span, self.now),
        }
    }
}
