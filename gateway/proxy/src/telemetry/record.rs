//! What is known of one request, told once: to the metrics, and to the access log if it wants to hear.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Version};
use portolan_model::{ClusterId, RouteId};
use tokio::time::Instant;

use super::access_log::Entry;
use super::metrics::Series;
use crate::config::AccessLog;
use crate::error::Reason;
use crate::http::request_id::RequestId;
use crate::http::survey::Values;
use crate::worker::Worker;

/// One request, from its head to the last byte of its answer. Counted and logged when dropped, so that a request that
/// is cancelled half-way is counted too. Nothing else in the data path logs for each request.
pub(crate) struct Record {
    worker: Rc<Worker>,
    pub(crate) started: Instant,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) client: IpAddr,
    pub(crate) request_id: Option<RequestId>,
    /// As the client sent it; only kept where the access log may want it, like the next two.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) user_agent: Option<HeaderValue>,
    /// 0 as long as there is no answer.
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) series: Option<Rc<Series>>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) attempts: u32,
    /// The start of the last attempt, and when the head of its response had come.
    pub(crate) upstream: Option<(Instant, Instant)>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) generation: u64,
}

impl Record {
    /// Opens the record of a request that has just come in.
    pub(crate) fn open(
        worker: Rc<Worker>,
        request: &http::request::Parts,
        values: &Values<'_>,
        peer: IpAddr,
    ) -> Self {
        let logged = worker.live().access_log != AccessLog::Off;
        let keep = |value: Option<&HeaderValue>| value.filter(|_| logged).cloned();
        Self {
            started: worker.clock.now(),
            method: request.method.clone(),
            version: request.version,
            client: peer,
            request_id: None,
            host: keep(values.host),
            path: if logged { request.uri.path_and_query().cloned() } else { None },
            user_agent: keep(values.user_agent),
            status: 0,
            reason: None,
            series: None,
            endpoint: None,
            attempts: 0,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            generation: 0,
            worker,
        }
    }

    /// Tells of something that did not become a request, because it is no HTTP or too large; its method is not known.
    pub(crate) fn refused(worker: Rc<Worker>, peer: IpAddr, status: StatusCode, reason: Reason) {
        let (mut request, ()) = http::Request::new(()).into_parts();
        request.method = Method::from_bytes(b"-").expect("a hyphen is a token");
        let mut record = Self::open(worker, &request, &Values::default(), peer);
        record.path = None;
        record.status = status.as_u16();
        record.reason = Some(reason);
    }

    fn wanted_by(&self, log: AccessLog) -> bool {
        let failed = self.reason.is_some() || self.status >= 500;
        match log {
            AccessLog::Off => false,
            AccessLog::Errors => failed,
            AccessLog::Sampled(share) => failed || fastrand::f64() < share,
            AccessLog::All => true,
        }
    }

    fn entry(&mut self, duration: Duration) -> Entry {
        let (route, cluster): (Option<RouteId>, Option<ClusterId>) = match &self.series {
            Some(series) => (Some(series.route.clone()), Some(series.cluster.clone())),
            None => (None, None),
        };
        Entry {
            ended: jiff::Timestamp::now(),
            request_id: self.request_id.take(),
            client: self.client,
            method: self.method.clone(),
            host: self.host.take(),
            path: self.path.take(),
            version: self.version,
            status: self.status,
            reason: self.reason,
            route,
            cluster,
            endpoint: self.endpoint,
            attempts: self.attempts,
            duration,
            upstream: self.upstream.map(|(began, answered)| answered - began),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            generation: self.generation,
            user_agent: self.user_agent.take(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.worker.clock.refresh() - self.started;
        let metrics = &self.worker.metrics;
        if let Some(reason) = self.reason {
            metrics.failed(reason);
        }
        match &self.series {
            Some(series) => series.observe(self.status, duration),
            None => metrics.unrouted(self.status),
        }
        if self.wanted_by(self.worker.live().access_log) {
            let entry = self.entry(duration);
            self.worker.access_log.write(entry);
        }
    }
}
