//! What can be set about the data path.

use std::time::Duration;

use ipnet::IpNet;

use crate::telemetry::AccessLogOutput;
use crate::tls::ServedCertificate;

/// What is fixed when the proxy starts.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Worker threads, each with its own sockets, pools and table cache. One for each core the process may use; more
    /// does not help, fewer leaves cores idle.
    pub workers: usize,
    /// The name by which this process signs in `Via`, and by which it knows a request that it has seen before. It
    /// must be one of its own for each process: two gateways in a row that share it answer 508.
    pub pseudonym: String,
    /// Where the access log goes.
    pub access_log: AccessLogOutput,
    /// Lines of the access log that may wait for the writer; what comes on top is dropped and counted.
    pub access_log_backlog: usize,
    /// The most connections from clients at once, over all workers; more are closed as soon as they are accepted.
    /// Each costs about 20 KiB and a file descriptor.
    pub max_connections: usize,
    /// The most bytes that the head of a request or response may have (431 and 502). Give or take
    /// 16 KiB, also the most that one direction of one connection buffers.
    pub max_head_bytes: usize,
    /// The most streams that one HTTP/2 client may have open at once.
    pub max_http2_streams: u32,
    /// Pending connections that the kernel holds for each listener and worker.
    pub backlog: u32,
    /// What is shown to clients of listeners with TLS; without it such listeners are not opened.
    pub certificate: Option<ServedCertificate>,
}

impl Default for ProxyConfig {
    /// One worker, and the limits that suit a gateway on a small node.
    fn default() -> Self {
        Self {
            workers: 1,
            pseudonym: format!("portolan-{:08x}", fastrand::u32(..)),
            access_log: AccessLogOutput::Stdout,
            access_log_backlog: 8192,
            max_connections: 50_000,
            max_head_bytes: 64 * 1024,
            max_http2_streams: 100,
            backlog: 4096,
            certificate: None,
        }
    }
}

/// What may change while the proxy runs; a change is used from the next request, connection or sweep on.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveConfig {
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed. For all others these fields are
    /// replaced by what is known here.
    pub trusted_proxies: Vec<IpNet>,
    /// Which requests get a line in the access log.
    pub access_log: AccessLog,
    /// Whether requests and responses are signed in `Via`. Without it a loop is found only when it runs out of
    /// connections.
    pub via: bool,
    /// The most header fields a request may have (431); the parser's own limit of 100 is the ceiling.
    pub max_header_fields: usize,
    /// The most bytes the body of a request may have (413); none means unlimited.
    pub max_body_bytes: Option<u64>,
    /// How long the head of a request may take, from the first byte (on a new connection: from accepting it).
    pub request_head_timeout: Duration,
    /// How long a client's connection may be idle between requests.
    pub client_idle_timeout: Duration,
    /// How long a connection to an endpoint is kept for the next request. Must be below the endpoints' own limit
    /// (5 s in Node.js), else requests race with their closing.
    pub upstream_idle_timeout: Duration,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            access_log: AccessLog::Off,
            via: true,
            max_header_fields: 100,
            max_body_bytes: None,
            request_head_timeout: Duration::from_secs(10),
            client_idle_timeout: Duration::from_secs(60),
            upstream_idle_timeout: Duration::from_secs(4),
        }
    }
}

/// Which requests get a line in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Those that failed here or were answered with 500 or above.
    Errors,
    /// Those of `Errors`, and this share (0 to 1) of the others.
    Sampled(f64),
    /// Every one.
    All,
}
