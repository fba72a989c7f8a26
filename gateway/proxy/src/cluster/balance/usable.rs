//! Who may get a request: the usable set of a cluster.
//!
//! The rule, in this order:
//! 1. ready, not ejected and not failed by active checks; of those the ones of the lowest priority value;
//! 2. if there is none, every ready one (the last resort: better a doubtful endpoint than an error of ours);
//! 3. if there is none, the draining ones, those that work before the others;
//! 4. else nobody.
//!
//! Weight 0 never takes a new request. An endpoint whose ejection is over is not usable yet: one request at a time
//! tries it, and its answer decides.

use std::sync::Arc;
use std::time::Duration;

use portolan_model::{self as model, Readiness};
use tokio::time::Instant;

use super::affinity;
use crate::cluster::{AffinityKey, ClusterState, Endpoint, Health, NoEndpoint, PickContext};

/// The endpoints that may get requests, as of one epoch of the cluster.
#[derive(Debug)]
pub(super) struct Usable {
    seats: Vec<Seat>,
    /// Ejected endpoints that come back when their time is over and a request succeeds.
    ejected: Vec<Seat>,
    /// When the first of them may be tried.
    trial_from: Option<Instant>,
    last_resort: bool,
    /// Why there are no seats, when there are none.
    nobody: NoEndpoint,
    slow_start: Option<Duration>,
}

/// A usable endpoint and its share.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) weight: u16,
}

impl Usable {
    /// The usable set of a state at this time.
    pub(super) fn of(state: &ClusterState, now: Instant) -> Self {
        let takes = |wanted| {
            state.members().filter(move |(_, standing)| standing.readiness == wanted && standing.weight > 0)
        };
        let works = |(endpoint, _): &Member<'_>| endpoint.health(now) == Health::Healthy;
        let priority = takes(Readiness::Ready).filter(works).map(|(_, standing)| standing.priority).min();
        let slow_start = state.policy.slow_start;
        let nobody = if state.endpoints.is_empty() { NoEndpoint::Empty } else { NoEndpoint::NoneReady };
        let mut usable = Self {
            seats: Vec::new(),
            ejected: Vec::new(),
            trial_from: None,
            last_resort: false,
            nobody,
            slow_start,
        };
        if let Some(priority) = priority {
            usable.seats = takes(Readiness::Ready)
                .filter(works)
                .filter(|(_, standing)| standing.priority == priority)
                .map(seat)
                .collect();
            usable.note_ejected(
                takes(Readiness::Ready).filter(|(_, standing)| standing.priority <= priority),
                now,
            );
        } else {
            usable.last_resort = true;
            usable.seats = takes(Readiness::Ready).map(seat).collect();
            if usable.seats.is_empty() {
                usable.seats = takes(Readiness::Draining).filter(works).map(seat).collect();
            }
            if usable.seats.is_empty() {
                usable.seats = takes(Readiness::Draining).map(seat).collect();
            }
        }
        usable
    }

    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Why nobody may get a request, if so.
    pub(super) fn nobody(&self) -> Option<NoEndpoint> {
        self.seats.is_empty().then_some(self.nobody)
    }

    pub(super) fn is_last_resort(&self) -> bool {
        self.last_resort
    }

    /// The length of the slow start, if the policy has one.
    pub(super) fn warming(&self) -> Option<Duration> {
        self.slow_start
    }

    /// Takes the one trial of an endpoint whose ejection is over, if there is one and this request suits it: a request
    /// that is tied elsewhere does not.
    pub(super) fn claim_trial(&self, context: &PickContext<'_>) -> Option<&Arc<Endpoint>> {
        if self.trial_from.is_none_or(|from| context.now < from) {
            return None;
        }
        self.ejected
            .iter()
            .filter(|seat| !context.tried.contains(&seat.endpoint.id()))
            .filter(|seat| self.suits(seat, context.affinity))
            .map(|seat| &seat.endpoint)
            .find(|endpoint| endpoint.claim_trial(context.now))
    }

    fn suits(&self, seat: &Seat, key: Option<AffinityKey<'_>>) -> bool {
        key.is_none_or(|key| affinity::leads_to(key, seat, &self.seats))
    }

    fn note_ejected<'a>(&mut self, members: impl Iterator<Item = Member<'a>>, now: Instant) {
        let ejected = members
            .filter(|(endpoint, _)| matches!(endpoint.health(now), Health::Ejected | Health::Returning))
            .map(seat)
            .collect::<Vec<_>>();
        self.trial_from = ejected.iter().filter_map(|seat| seat.endpoint.ejected_until()).min();
        self.ejected = ejected;
    }
}

/// Whether each endpoint of a state may get a request, and why or why not, in the order of the state.
pub(crate) fn verdicts(state: &ClusterState, now: Instant) -> Vec<(bool, &'static str)> {
    let usable = Usable::of(state, now);
    let verdict = |(endpoint, standing): Member<'_>| {
        let seated = usable.seats.iter().any(|seat| seat.endpoint.id() == endpoint.id());
        (seated, if seated { usable.why_seated(standing) } else { why_not(endpoint, standing, now) })
    };
    state.members().map(verdict).collect()
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
        (Readiness::Ready, Health::Returning) => "its ejection is over; one request at a time tries it",
        (Readiness::Ready, Health::Healthy) => "endpoints of a lower priority value are usable",
    }
}

type Member<'a> = (&'a Arc<Endpoint>, &'a model::Endpoint);

fn seat((endpoint, standing): Member<'_>) -> Seat {
    Seat { endpoint: Arc::clone(endpoint), weight: standing.weight }
}
