//! Who may get a request: the usable set of a cluster.
//!
//! The rule, in this order:
//! 1. ready, not ejected and not failed by active checks; of those the ones of the lowest priority value;
//! 2. if there is none, every ready one (the last resort: better a doubtful endpoint than an error of ours);
//! 3. if there is none, the draining ones, those that work before the others;
//! 4. else nobody.
//!
//! Weight 0 never takes a new request. An endpoint whose ejection is over is not usable yet: one request at a time
//! tries it, and its answer decides; a copy of the request where it can be copied, so that nobody waits for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portolan_model::{self as model, Readiness};
use tokio::time::Instant;

use super::affinity;
use crate::cluster::pick::Held;
use crate::cluster::{ClusterState, Endpoint, Health, NoEndpoint, PickContext};

/// A request that cannot be copied tries an endpoint itself only if none that can has done so for this time after its
/// ejection: it may cost the client an error.
const PATIENCE: Duration = Duration::from_secs(1);

/// The endpoints that may get requests, as of one epoch of the cluster.
#[derive(Debug)]
pub(super) struct Usable {
    state: Arc<ClusterState>,
    seats: Vec<Seat>,
    /// The endpoint of each seat, once it has been taken.
    held: Vec<Option<Rc<Held>>>,
    /// Ejected endpoints that come back when their time is over and a request succeeds.
    ejected: Vec<Seat>,
    /// When the first of them may be tried.
    trial_from: Option<Instant>,
    last_resort: bool,
}

/// A usable endpoint and its share. Small and without a count of its own: a change of a large cluster copies many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    /// Its number in the cluster's state.
    member: u32,
    pub(super) weight: u16,
    /// See [`Endpoint::token`].
    pub(super) token: u64,
}

impl Usable {
    /// The usable set of a state at this time.
    pub(super) fn of(state: Arc<ClusterState>, now: Instant) -> Self {
        let Sorted { priority, mut seats, ejected } = sorted(&state, now);
        let last_resort = priority.is_none();
        if last_resort {
            seats = those(&state, Readiness::Ready, |_| true);
        }
        if seats.is_empty() {
            seats = those(&state, Readiness::Draining, |endpoint| endpoint.health(now) == Health::Healthy);
        }
        if seats.is_empty() {
            seats = those(&state, Readiness::Draining, |_| true);
        }
        let ejected = ejected.into_iter().filter(|(of, _)| priority.is_some_and(|priority| *of <= priority));
        let ejected = ejected.map(|(_, seat)| seat).collect();
        let held = vec![None; seats.len()];
        let mut usable = Self { state, seats, held, ejected, trial_from: None, last_resort };
        let endings = usable.ejected.iter().filter_map(|seat| usable.endpoint(seat).ejected_until());
        usable.trial_from = endings.min();
        usable
    }

    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    pub(super) fn endpoint(&self, seat: &Seat) -> &Arc<Endpoint> {
        &self.state.endpoints[seat.member as usize]
    }

    /// The endpoint of the seat of this number.
    pub(super) fn seated(&self, seat: usize) -> &Arc<Endpoint> {
        self.endpoint(&self.seats[seat])
    }

    /// The same, to be kept for a request.
    pub(super) fn hold(&mut self, seat: usize) -> Rc<Held> {
        if self.held[seat].is_none() {
            self.held[seat] = Some(Rc::new(Held(Arc::clone(self.seated(seat)))));
        }
        self.held[seat].as_ref().map(Rc::clone).expect("it is held by now")
    }

    /// Why nobody may get a request, if so.
    pub(super) fn nobody(&self) -> Option<NoEndpoint> {
        let reason = if self.state.endpoints.is_empty() { NoEndpoint::Empty } else { NoEndpoint::NoneReady };
        self.seats.is_empty().then_some(reason)
    }

    pub(super) fn is_last_resort(&self) -> bool {
        self.last_resort
    }

    /// The length of the slow start, if the policy has one.
    pub(super) fn warming(&self) -> Option<Duration> {
        self.state.policy.slow_start
    }

    /// Takes the one trial of an endpoint whose ejection is over, if there is one and this request suits it: a request
    /// that is tied elsewhere does not.
    pub(super) fn claim_trial(&self, context: &PickContext<'_>) -> Option<&Arc<Endpoint>> {
        let patience = if context.copyable { Duration::ZERO } else { PATIENCE };
        let is_due = |from: Instant| context.now >= from + patience;
        if !self.trial_from.is_some_and(is_due) {
            return None;
        }
        self.ejected
            .iter()
            .filter(|seat| self.endpoint(seat).ejected_until().is_some_and(is_due))
            .filter(|seat| context.affinity.is_none_or(|key| affinity::leads_to(key, seat, &self.seats)))
            .map(|seat| self.endpoint(seat))
            .filter(|endpoint| !context.tried.contains(&endpoint.id()))
            .find(|endpoint| endpoint.claim_trial(context.now))
    }
}

/// The ready endpoints, sorted by whether they work.
struct Sorted {
    /// The lowest priority value of those that work.
    priority: Option<u8>,
    /// Those that work and have it.
    seats: Vec<Seat>,
    /// The ejected ones, each with its priority value.
    ejected: Vec<(u8, Seat)>,
}

fn sorted(state: &ClusterState, now: Instant) -> Sorted {
    let mut sorted = Sorted { priority: None, seats: Vec::new(), ejected: Vec::new() };
    for (member, endpoint, standing) in takers(state, Readiness::Ready) {
        let seat = seat(member, endpoint, standing);
        match endpoint.health(now) {
            Health::Healthy => sorted.add(standing.priority, seat),
            Health::Ejected | Health::Returning => sorted.ejected.push((standing.priority, seat)),
            Health::Failed => {}
        }
    }
    sorted
}

impl Sorted {
    fn add(&mut self, priority: u8, seat: Seat) {
        if self.priority.is_none_or(|lowest| priority < lowest) {
            self.priority = Some(priority);
            self.seats.clear();
        }
        if self.priority == Some(priority) {
            self.seats.push(seat);
        }
    }
}

/// The endpoints of this readiness that take new requests, each with its number in the state.
fn takers(
    state: &ClusterState,
    readiness: Readiness,
) -> impl Iterator<Item = (u32, &Arc<Endpoint>, &model::Endpoint)> {
    let takes = move |standing: &model::Endpoint| standing.readiness == readiness && standing.weight > 0;
    let members =
        (0..).zip(state.members()).map(|(member, (endpoint, standing))| (member, endpoint, standing));
    members.filter(move |(_, _, standing)| takes(standing))
}

fn those(state: &ClusterState, readiness: Readiness, suits: impl Fn(&Endpoint) -> bool) -> Vec<Seat> {
    let suiting = takers(state, readiness).filter(|(_, endpoint, _)| suits(endpoint));
    suiting.map(|(member, endpoint, standing)| seat(member, endpoint, standing)).collect()
}

fn seat(member: u32, endpoint: &Endpoint, standing: &model::Endpoint) -> Seat {
    Seat { member, weight: standing.weight, token: endpoint.token() }
}

/// Whether each endpoint of a state may get a request, and why or why not, in the order of the state.
pub(crate) fn verdicts(state: &Arc<ClusterState>, now: Instant) -> Vec<(bool, &'static str)> {
    let usable = Usable::of(Arc::clone(state), now);
    let mut seated = vec![false; state.endpoints.len()];
    for seat in &usable.seats {
        seated[seat.member as usize] = true;
    }
    let why = |((endpoint, standing), seated): ((&Arc<Endpoint>, &model::Endpoint), bool)| {
        (seated, if seated { usable.why_seated(standing) } else { why_not(endpoint, standing, now) })
    };
    state.members().zip(seated).map(why).collect()
}

impl Usable {
    fn why_seated(&self, standing: &model::Endpoint) -> &'static str {
        match (self.last_resort, standing.readiness) {
            (false, _) => "it is ready and works",
            (true, Readiness::Draining) => "it is draining, but nothing is ready",
            (true, _) => "it is ready; no ready endpoint is known to work, so all of them get requests",
        }
    }
}

fn why_not(endpoint: &Endpoint, standing: &model::Endpoint, now: Instant) -> &'static str {
    match (standing.readiness, endpoint.health(now)) {
        _ if standing.weight == 0 => "its weight is 0",
        (Readiness::NotReady, _) => "it is not ready",
        (Readiness::Draining, _) => "it is draining and others may get the request",
        (Readiness::Ready, Health::Failed) => "active checks fail",
        (Readiness::Ready, Health::Ejected) => "it is ejected: its answers failed",
        (Readiness::Ready, Health::Returning) => {
            "its ejection is over; one request at a time, or a copy of it, tries it"
        }
        (Readiness::Ready, Health::Healthy) => "endpoints of a lower priority value are usable",
    }
}
