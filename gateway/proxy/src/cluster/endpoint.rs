//! One endpoint at work: its identity, load and health.
//!
//! Problem: every worker reads and writes the same endpoint. Choice: all of it stands in one padded block, so that a
//! write touches no neighbour, and everything but the count of requests in flight is loaded before it is stored, so
//! that good answers of a healthy endpoint leave it alone. Times are microseconds since the endpoint was first seen,
//! which fit an atomic and follow tokio's clock.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use portolan_model::{ClusterId, EndpointKey};
use serde::Serialize;
use tokio::time::Instant;

use super::balance::stable_hash;

/// An answer is remembered to this many microseconds (about an eighth of a second), so that it is written at most
/// eight times a second.
const ANSWER_TICK_SHIFT: u32 = 17;

/// One process that answers, shared by all workers. It lives as long as its key (cluster, address, uid) is in the
/// cluster, whatever else changes, and a little longer for requests that still run on it.
#[derive(Debug)]
pub struct Endpoint(CachePadded<Inner>);

#[derive(Debug)]
struct Inner {
    in_flight: AtomicU32,
    /// Failure points since the last good answer; see `health::outlier`.
    failures: AtomicU32,
    /// When the ejection ends; 0 while the endpoint is not ejected.
    ejected_until: AtomicU64,
    /// The number of the last ejection in a row of them.
    ejections: AtomicU32,
    /// When the last ejection was to end; 0 if there was none. Stays when the endpoint is taken back.
    last_ejection_end: AtomicU64,
    /// Whether a request that tries an endpoint whose ejection has ended is under way.
    on_trial: AtomicBool,
    /// Whether active checks found it bad.
    check_failed: AtomicBool,
    /// Whether it left its cluster.
    retired: AtomicBool,
    /// Whether its source says that it is on its way out.
    draining: AtomicBool,
    /// Since when it is ready, for slow start; 0 for those that were ready when the cluster was first seen.
    ready_since: AtomicU64,
    /// When it last answered anything, coarsely.
    last_answer: AtomicU64,
    id: u64,
    token: u64,
    first_seen: Instant,
    key: EndpointKey,
}

/// Whether an endpoint works, as its answers and the active checks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing is known against it.
    Healthy,
    /// Its answers failed and it is left out for a while.
    Ejected,
    /// Its ejection is over; the next request to it decides.
    Returning,
    /// Active checks fail.
    Failed,
}

/// The address as an IPv6 one, which an IPv4 one can be written as.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

impl Endpoint {
    pub(crate) fn new(cluster: &ClusterId, key: EndpointKey, now: Instant) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let token = stable_hash(&[
            cluster.as_str().as_bytes(),
            &octets(key.address.ip()),
            &key.address.port().to_be_bytes(),
            key.uid.as_deref().unwrap_or_default().as_bytes(),
        ]);
        Self(CachePadded::new(Inner {
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            last_ejection_end: AtomicU64::new(0),
            on_trial: AtomicBool::new(false),
            check_failed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ready_since: AtomicU64::new(0),
            last_answer: AtomicU64::new(0),
            id: NEXT_ID.fetch_add(1, Relaxed),
            token,
            first_seen: now,
            key,
        }))
    }

    /// A number that no other endpoint of this process has or had.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.0.key.address
    }

    /// What makes it this endpoint and no other within its cluster.
    pub fn key(&self) -> &EndpointKey {
        &self.0.key
    }

    /// Requests that run on it, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.0.in_flight.load(Relaxed)
    }

    /// Whether it left its cluster: no new request comes, connections to it are closed when idle.
    pub fn is_retired(&self) -> bool {
        self.0.retired.load(Acquire)
    }

    /// Whether it is on its way out: connections to it are not kept for long.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Acquire)
    }

    /// Whether it works.
    pub fn health(&self, now: Instant) -> Health {
        if self.0.check_failed.load(Acquire) {
            return Health::Failed;
        }
        match self.0.ejected_until.load(Acquire) {
            0 => Health::Healthy,
            until if until > self.clock(now) => Health::Ejected,
            _ => Health::Returning,
        }
    }

    /// When its ejection ends or ended; `None` while it is not ejected.
    pub fn ejected_until(&self) -> Option<Instant> {
        self.instant(self.0.ejected_until.load(Acquire))
    }

    /// When its last ejection ended or is to end.
    pub(crate) fn last_ejection_end(&self) -> Option<Instant> {
        self.instant(self.0.last_ejection_end.load(Relaxed))
    }

    /// The number of ejections in a row that it has had.
    pub fn ejections(&self) -> u32 {
        self.0.ejections.load(Relaxed)
    }

    /// What a cookie carries to come back to this endpoint: opaque, the same in every gateway and after a restart.
    pub fn affinity_token(&self) -> String {
        format!("{:016x}", self.0.token)
    }

    /// The number behind [`Endpoint::affinity_token`].
    pub(crate) fn token(&self) -> u64 {
        self.0.token
    }

    /// The instant of a stored time; 0 stands for never.
    fn instant(&self, stored: u64) -> Option<Instant> {
        let since = Duration::from_micros(stored.checked_sub(1)?);
        self.0.first_seen.checked_add(since)
    }

    fn clock(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0.first_seen).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}

// === load ===

impl Endpoint {
    pub(crate) fn begin(&self) {
        self.0.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

// === health: written by `health::outlier`, `health::prober` and the publisher ===

impl Endpoint {
    /// Notes that it answered at all.
    pub(crate) fn answered(&self, now: Instant) {
        let tick = self.clock(now) >> ANSWER_TICK_SHIFT << ANSWER_TICK_SHIFT;
        if self.0.last_answer.load(Relaxed) < tick {
            self.0.last_answer.store(tick, Relaxed);
        }
    }

    /// Whether it answered nothing from `since` on, as far as the coarse clock tells: a span of less than a quarter of
    /// a second is too short to say so.
    pub(crate) fn silent_since(&self, since: Instant, now: Instant) -> bool {
        let tick = 1 << ANSWER_TICK_SHIFT;
        let (since, now) = (self.clock(since), self.clock(now));
        now.saturating_sub(since) >= 2 * tick && self.0.last_answer.load(Relaxed) + tick <= since.max(tick)
    }

    /// Adds failure points and says how many there are now.
    pub(crate) fn add_failures(&self, points: u32) -> u32 {
        self.0.failures.fetch_add(points, AcqRel).saturating_add(points)
    }

    pub(crate) fn clear_failures(&self) {
        if self.0.failures.load(Relaxed) != 0 {
            self.0.failures.store(0, Release);
        }
    }

    /// Ejects it for `length`, as the `number`th time in a row.
    pub(crate) fn eject(&self, number: u32, length: Duration, now: Instant) {
        let length = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        self.0.failures.store(0, Release);
        self.0.ejections.store(number, Relaxed);
        let until = self.clock(now).saturating_add(length);
        self.0.last_ejection_end.store(until, Relaxed);
        self.0.ejected_until.store(until, Release);
    }

    /// Takes it back after an ejection; false if it was not ejected.
    pub(crate) fn take_back(&self) -> bool {
        self.clear_failures();
        self.0.ejected_until.load(Relaxed) != 0 && self.0.ejected_until.swap(0, AcqRel) != 0
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.0.ejected_until.load(Acquire) != 0
    }

    /// Asks to be the one request that tries an endpoint whose ejection has ended.
    pub(crate) fn claim_trial(&self, now: Instant) -> bool {
        self.health(now) == Health::Returning
            && !self.0.on_trial.load(Relaxed)
            && !self.0.on_trial.swap(true, AcqRel)
    }

    pub(crate) fn end_trial(&self) {
        self.0.on_trial.store(false, Release);
    }

    /// Sets what the active checks say; false if they said so before.
    pub(crate) fn set_check_failed(&self, failed: bool) -> bool {
        self.0.check_failed.load(Acquire) != failed && self.0.check_failed.swap(failed, AcqRel) != failed
    }

    pub(crate) fn became_ready(&self, now: Instant) {
        self.0.ready_since.store(self.clock(now), Relaxed);
    }

    /// How much of its share it takes during a slow start of length `span`: from a tenth to all of it.
    pub(crate) fn warmth(&self, span: Duration, now: Instant) -> f32 {
        let since = self.0.ready_since.load(Relaxed);
        if since == 0 || span.is_zero() {
            return 1.0;
        }
        let age = Duration::from_micros(self.clock(now).saturating_sub(since));
        (age.as_secs_f32() / span.as_secs_f32()).clamp(0.1, 1.0)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.0.draining.store(draining, Release);
    }

    pub(crate) fn retire(&self) {
        self.0.retired.store(true, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_one_padded_block() {
        assert_eq!(
            size_of::<Endpoint>(),
            size_of::<CachePadded<u8>>(),
            "a hundred thousand of them are held"
        );
    }

    #[test]
    fn a_token_tells_endpoints_apart_and_is_the_same_for_the_same_one() {
        let token = |cluster: &str, address: &str, uid: Option<&str>| {
            let key = EndpointKey { address: address.parse().unwrap(), uid: uid.map(Into::into) };
            Endpoint::new(&ClusterId::new("shop", cluster, 80), key, Instant::now()).affinity_token()
        };
        let first = token("orders", "10.0.0.1:80", Some("a"));
        assert_eq!(first, token("orders", "10.0.0.1:80", Some("a")));
        assert_eq!(first, "f6897bb29aa5bc67", "it outlives restarts and releases");
        for other in [
            token("billing", "10.0.0.1:80", Some("a")),
            token("orders", "10.0.0.2:80", Some("a")),
            token("orders", "10.0.0.1:81", Some("a")),
            token("orders", "10.0.0.1:80", Some("b")),
            token("orders", "10.0.0.1:80", None),
        ] {
            assert_ne!(first, other);
        }
    }
}
