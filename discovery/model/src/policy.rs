//! How a cluster's requests are spread, retried, timed and checked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that can be said of a cluster beside its endpoints. [`Default`] is what a service gets that asks for
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClusterPolicy {
    /// How an endpoint is picked.
    pub balancing: Balancing,
    /// What ties a client to an endpoint.
    pub affinity: Affinity,
    /// Active checks; none unless asked for.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection by the answers to real requests.
    pub outlier_detection: OutlierDetection,
    /// When a failed request is tried on another endpoint.
    pub retry: RetryPolicy,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Over how long a new endpoint's share grows to its full size; none means at once.
    pub slow_start: Option<Duration>,
}

/// How an endpoint is picked among those that may get the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight over all workers, relative to its weight: exactly, below 32
    /// endpoints; the better of two random ones from there on. Ties take turns.
    LeastConnection,
}

/// What ties a client's requests to one endpoint for as long as that endpoint is usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// Nothing.
    #[default]
    None,
    /// The client's address (the nearest untrusted one).
    ClientIp,
    /// A cookie of this name that the gateway sets.
    Cookie(String),
    /// The value of this header field (lower case).
    Header(String),
}

/// Active checks, by one prober for the whole gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From the start of one check to the start of the next, with jitter.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row that make an unhealthy endpoint healthy.
    pub healthy_threshold: u32,
    /// Bad answers in a row that make a healthy endpoint unhealthy.
    pub unhealthy_threshold: u32,
}

/// What an active check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// `GET` of this path; 200 to 399 is good.
    Http(String),
    /// A connection is enough.
    Tcp,
}

/// Passive ejection: an endpoint whose answers fail is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// Failures in a row that eject; 0 turns it off.
    pub consecutive_failures: u32,
    /// The first ejection's length; each further one is longer by as much.
    pub base_ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// At most this share of a cluster's endpoints is ejected at once, in percent.
    pub max_ejected_percent: u8,
    /// Whether an answer of 500 counts as a failure; 502, 503 and 504 always do.
    pub eject_on_500: bool,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(5),
            max_ejection: Duration::from_secs(300),
            max_ejected_percent: 50,
            eject_on_500: false,
        }
    }
}

/// When a failed request is tried again, on another endpoint. Any method is if no byte of it was written; a request
/// without a body and of an idempotent method (RFC 9110 section 9.2.2) also if its connection died before the first
/// byte of the response. A time-out is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Tries beyond the first; 0 turns retries off.
    pub max_retries: u32,
    /// Retries may be at most this share of the cluster's requests, in percent.
    pub budget_percent: u32,
    /// This many retries a second are allowed whatever the share.
    pub budget_floor_per_second: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 2, budget_percent: 20, budget_floor_per_second: 10 }
    }
}

/// How long each step towards the backend may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// To open a connection.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub response_header: Duration,
    /// Without a byte of a body moving, in either direction.
    pub stream_idle: Duration,
    /// For the whole exchange; none means unlimited.
    pub request: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response_header: Duration::from_secs(60),
            stream_idle: Duration::from_secs(300),
            request: None,
        }
    }
}
