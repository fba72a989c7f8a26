//! One choice of an endpoint, and what became of it.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use portolan_model::ClusterPolicy;
use tokio::time::Instant;

use super::balance::Desk;
use super::{Cluster, Endpoint};
use crate::health::outlier;

/// What a choice depends on beside the cluster.
#[derive(Debug, Clone, Copy)]
pub struct PickContext<'a> {
    /// The present, read once per attempt.
    pub now: Instant,
    /// What ties this client to an endpoint, where the cluster's policy asks for it.
    pub affinity: Option<AffinityKey<'a>>,
    /// The ids of endpoints that earlier attempts of this request went to; avoided while another is usable.
    pub tried: &'a [u64],
    /// Whether a copy of the request may be sent to an endpoint on trial: doing it twice must do no more than doing it
    /// never (RFC 9110 section 9.2.1), and it has no body.
    pub copyable: bool,
}

/// What ties a client to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityKey<'a> {
    /// The client's address (the nearest untrusted one).
    ClientIp(IpAddr),
    /// The value of the header field that the policy names.
    Header(&'a [u8]),
    /// The value of the cookie that the policy names, as [`Endpoint::affinity_token`] made it.
    Cookie(&'a str),
}

/// Why no endpoint can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The cluster has no endpoint at all, or does not exist.
    #[error("the cluster has no endpoints")]
    Empty,
    /// It has some, but each is unready or has weight 0.
    #[error("no endpoint of the cluster is ready or draining with a weight above 0")]
    NoneReady,
}

/// How an attempt ended, as far as it says something of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of a response came.
    Answered(StatusCode),
    /// A connection was refused or broke while it was opened.
    ConnectFailed,
    /// A connection did not open in time.
    ConnectTimedOut,
    /// The connection broke before the head of a response.
    Reset,
    /// No head of a response came in time.
    TimedOut,
}

/// How the endpoint came to be chosen, which decides what its outcome means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// It was usable.
    No,
    /// Its ejection was over and this request alone finds out whether it works again.
    Probe,
    /// Nothing was usable, so everything ready got requests.
    LastResort,
}

/// A worker's own hold on an endpoint, of which each of its requests has a clone. The count in the [`Arc`] stands in a
/// cache line for which all workers would fight with each request.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Arc<Endpoint>);

/// A chosen endpoint. It counts as one request in flight until it is dropped: keep it until the last byte of the
/// response. Dropped without a [`Pick::record`] it says nothing of the endpoint's health (the client went away).
#[derive(Debug)]
pub struct Pick {
    endpoint: Rc<Held>,
    desk: Rc<Desk>,
    picked_at: Instant,
    trial: Trial,
    by_affinity: bool,
    recorded: bool,
    /// Seldom: an endpoint whose ejection is over, to be tried with a copy of the request.
    on_trial: Option<Box<Pick>>,
}

impl Pick {
    pub(crate) fn new(
        endpoint: Rc<Held>,
        desk: &Rc<Desk>,
        now: Instant,
        trial: Trial,
        by_affinity: bool,
    ) -> Self {
        endpoint.0.begin();
        Self {
            endpoint,
            desk: Rc::clone(desk),
            picked_at: now,
            trial,
            by_affinity,
            recorded: false,
            on_trial: None,
        }
    }

    pub(crate) fn with_trial(mut self, on_trial: Pick) -> Self {
        self.on_trial = Some(Box::new(on_trial));
        self
    }

    /// The endpoint that a copy of this request is to try, if there is one. Once.
    pub(crate) fn take_trial(&mut self) -> Option<Pick> {
        self.on_trial.take().map(|pick| *pick)
    }

    /// Where the request goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint.0
    }

    /// The worker's own hold on it, which costs nothing to clone.
    pub(crate) fn held(&self) -> &Rc<Held> {
        &self.endpoint
    }

    /// The cluster it was chosen from.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.desk.cluster
    }

    /// The cluster's policy when it was chosen.
    pub fn policy(&self) -> &Arc<ClusterPolicy> {
        &self.desk.policy
    }

    /// Whether the affinity key led here. Where it did not and the policy asks for a cookie, a new one is set.
    pub fn by_affinity(&self) -> bool {
        self.by_affinity
    }

    /// Says how the attempt ended, `now`. Only the first call counts.
    pub fn record(&mut self, outcome: Outcome, now: Instant) {
        if !self.recorded {
            self.recorded = true;
            let Desk { cluster, policy } = &*self.desk;
            let policy = &policy.outlier_detection;
            let time = (self.picked_at, now);
            outlier::observe(cluster, policy, &self.endpoint.0, outcome, self.trial, time);
            self.end_trial();
        }
    }
}

impl Pick {
    /// The head of the response decides a trial; its body may take hours.
    fn end_trial(&mut self) {
        if self.trial == Trial::Probe {
            self.trial = Trial::No;
            self.endpoint.0.end_trial();
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.end_trial();
        self.endpoint.0.end();
    }
}
