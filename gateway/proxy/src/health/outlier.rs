//! Passive ejection: an endpoint whose answers fail is left out for a while.
//!
//! **What counts.** Each failure in a row adds points; a good answer takes all of them away; as many points as the
//! policy's `consecutive_failures` eject.
//!
//! | outcome | points |
//! |---|---|
//! | connection refused or broken, reset before the response, 502, 503, 504 (500 if the policy asks) | 1 |
//! | time-out (connecting or waiting for the response) of an endpoint that answered others meanwhile | half of the threshold, rounded up |
//! | time-out of an endpoint that answered nothing since this request was sent | all of the threshold |
//!
//! A time-out weighs more because it tells late: an endpoint that hangs has taken every request of the whole waiting
//! time by then. If it answered nothing at all in that time, it hangs; if it answered others, the request may be slow
//! by itself, and two such in a row are needed.
//!
//! **How long.** The first ejection lasts `base_ejection`, each further one as much longer, up to `max_ejection`. Of
//! the number of ejections one is forgotten for each twelve `base_ejection` without one. An ejection ends by itself,
//! but then one request at a time tries the endpoint: a good answer takes it back, a bad one ejects it again. Where the
//! request is safe to send twice a copy of it does that, and its client waits for another endpoint's answer.
//!
//! **How many.** At most `max_ejected_percent` of the cluster's ready endpoints, rounded down, though one may always
//! be out of two or more; and never the last usable one. A failure that may not eject starts the count anew.

use std::time::Duration;

use http::StatusCode;
use portolan_model::{OutlierDetection, Readiness};
use tokio::time::Instant;

use crate::cluster::{Cluster, ClusterState, Endpoint, Health, Outcome, Trial};

/// So many times the base ejection without an ejection, and one of the past ones is forgotten.
const CALM_FACTOR: u32 = 12;

/// Takes note of how an attempt ended just now that began at `picked_at`.
pub(crate) fn observe(
    cluster: &Cluster,
    policy: &OutlierDetection,
    endpoint: &Endpoint,
    outcome: Outcome,
    trial: Trial,
    (picked_at, now): (Instant, Instant),
) {
    if matches!(outcome, Outcome::Answered(_)) {
        endpoint.answered(now);
    }
    match points(policy, endpoint, outcome, picked_at, now) {
        0 => succeeded(cluster, endpoint, trial),
        points => failed(cluster, policy, endpoint, points, trial, now),
    }
}

fn points(
    policy: &OutlierDetection,
    endpoint: &Endpoint,
    outcome: Outcome,
    picked_at: Instant,
    now: Instant,
) -> u32 {
    let threshold = policy.consecutive_failures.max(1);
    match outcome {
        Outcome::Answered(status) if is_failure(policy, status) => 1,
        Outcome::Answered(_) => 0,
        Outcome::ConnectFailed | Outcome::Reset => 1,
        Outcome::ConnectTimedOut | Outcome::TimedOut if endpoint.silent_since(picked_at, now) => threshold,
        Outcome::ConnectTimedOut | Outcome::TimedOut => threshold.div_ceil(2),
    }
}

fn is_failure(policy: &OutlierDetection, status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
        || (policy.eject_on_500 && status == StatusCode::INTERNAL_SERVER_ERROR)
}

/// A late answer to a request from before the ejection does not end it; the answer to a trial does.
fn succeeded(cluster: &Cluster, endpoint: &Endpoint, trial: Trial) {
    if !endpoint.is_ejected() {
        endpoint.clear_failures();
    } else if trial != Trial::No && endpoint.take_back() {
        cluster.touch();
    }
}

fn failed(
    cluster: &Cluster,
    policy: &OutlierDetection,
    endpoint: &Endpoint,
    points: u32,
    trial: Trial,
    now: Instant,
) {
    if policy.consecutive_failures == 0 {
        return;
    }
    if endpoint.is_ejected() {
        // What still fails from before says nothing new; a failed trial does.
        if trial == Trial::Probe {
            eject(cluster, policy, endpoint, now);
        }
        return;
    }
    if endpoint.add_failures(points) < policy.consecutive_failures {
        return;
    }
    let _one_at_a_time = cluster.ejecting();
    if !endpoint.is_ejected() && may_eject(&cluster.state(), endpoint, now) {
        eject(cluster, policy, endpoint, now);
    } else {
        endpoint.clear_failures();
    }
}

fn eject(cluster: &Cluster, policy: &OutlierDetection, endpoint: &Endpoint, now: Instant) {
    let number = remembered(policy, endpoint, now).saturating_add(1);
    endpoint.eject(number, length(policy, number), now);
    cluster.count_ejection();
    cluster.touch();
}

fn length(policy: &OutlierDetection, number: u32) -> Duration {
    policy.base_ejection.saturating_mul(number).min(policy.max_ejection)
}

/// How many of the past ejections still count.
fn remembered(policy: &OutlierDetection, endpoint: &Endpoint, now: Instant) -> u32 {
    let calm = policy.base_ejection.saturating_mul(CALM_FACTOR).as_micros().max(1);
    let since_last =
        endpoint.last_ejection_end().map_or(0, |end| now.saturating_duration_since(end).as_micros());
    let forgotten = u32::try_from(since_last / calm).unwrap_or(u32::MAX);
    endpoint.ejections().saturating_sub(forgotten)
}

/// Whether one more endpoint may be ejected: within the policy's share, and another usable one remains.
fn may_eject(state: &ClusterState, candidate: &Endpoint, now: Instant) -> bool {
    let (mut ready, mut ejected, mut others) = (0_u64, 0_u64, 0_u64);
    for (endpoint, standing) in state.members() {
        if standing.readiness != Readiness::Ready || standing.weight == 0 {
            continue;
        }
        ready += 1;
        match endpoint.health(now) {
            Health::Ejected | Health::Returning => ejected += 1,
            Health::Healthy if endpoint.id() != candidate.id() => others += 1,
            Health::Healthy | Health::Failed => {}
        }
    }
    let percent = u64::from(state.policy.outlier_detection.max_ejected_percent.min(100));
    let most = if percent == 0 { 0 } else { (ready * percent / 100).max(1) };
    ejected < most && others > 0
}

#[cfg(test)]
mod tests;
