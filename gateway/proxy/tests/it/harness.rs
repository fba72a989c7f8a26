//! A gateway, upstreams and clients for tests.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_model::{
    BackendRef, Cluster, ClusterId, ClusterPolicy, Endpoint, Filter, HostMatch, Hostname, Listener,
    ListenerId, Match, PathMatch, PortMatch, Protocol, Rank, ResourceRef, Role, Roles, Route, RouteId, Rule,
    Snapshot,
};
use portolan_proxy::{AccessLogOutput, ListenerState, LiveConfig, Proxy, ProxyConfig, ServedCertificate};
use prometheus::TextEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Nothing in these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for something that must come.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// What a test may set before the gateway starts.
pub(crate) struct Setup {
    pub(crate) config: ProxyConfig,
    pub(crate) live: LiveConfig,
    pub(crate) policy: ClusterPolicy,
    services: Vec<(String, Vec<Endpoint>)>,
    listeners: Vec<Listener>,
    log: Log,
}

/// A running gateway with an edge and a cluster listener.
pub(crate) struct Gateway {
    proxy: Option<Proxy>,
    pub(crate) edge: SocketAddr,
    pub(crate) cluster: SocketAddr,
    /// Where it speaks TLS, if it was given a certificate.
    pub(crate) tls: Option<SocketAddr>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) live: watch::Sender<Arc<LiveConfig>>,
    registry: prometheus::Registry,
    log: Log,
}

/// The access log, as far as it is written.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Setup {
    pub(crate) fn new() -> Self {
        let log = Log::default();
        let config = ProxyConfig {
            workers: 1,
            pseudonym: "portolan-test".into(),
            access_log: AccessLogOutput::Writer(Box::new(log.clone())),
            ..ProxyConfig::default()
        };
        let live = LiveConfig {
            access_log: portolan_proxy::AccessLog::All,
            // A connection that is closed is closed for the reason that the test is about, not for its age.
            upstream_idle_timeout: Duration::from_secs(600),
            ..LiveConfig::default()
        };
        Self {
            config,
            live,
            policy: ClusterPolicy::default(),
            services: Vec::new(),
            listeners: vec![
                listener("edge", loopback(), Role::Edge),
                listener("cluster", loopback(), Role::Cluster),
            ],
            log,
        }
    }

    /// A service of this name at these addresses: `/NAME/**` at the edge, and its name as the host for both.
    pub(crate) fn service(mut self, name: &str, addresses: &[SocketAddr]) -> Self {
        let endpoints = addresses.iter().copied().map(Endpoint::new).collect();
        self.services.push((name.into(), endpoints));
        self
    }

    /// Besides, a listener at the edge over TLS that shows this certificate.
    pub(crate) fn tls(mut self, certificate: ServedCertificate) -> Self {
        self.config.certificate = Some(certificate);
        let listener = listener("tls", loopback(), Role::Edge);
        self.listeners.push(Listener { protocol: Protocol::Https, ..listener });
        self
    }

    pub(crate) async fn start(self) -> Gateway {
        let (count, has_tls) = (self.listeners.len(), self.config.certificate.is_some());
        let mut snapshot = Snapshot { generation: 1, ..Snapshot::default() };
        for listener in self.listeners {
            snapshot.listeners.insert(listener.id.clone(), Arc::new(listener));
        }
        for (name, endpoints) in &self.services {
            put_service(&mut snapshot, name, endpoints.clone(), &self.policy);
        }
        let (snapshots, snapshots_seen) = watch::channel(Arc::new(snapshot));
        let (live, live_seen) = watch::channel(Arc::new(self.live));
        let registry = prometheus::Registry::new();
        let proxy = Proxy::start(self.config, live_seen, snapshots_seen, &registry).unwrap();
        let mut listeners = proxy.listeners();
        soon(listeners.wait_for(|listeners| listeners.len() == count)).await.unwrap();
        let address = |id: &str| {
            let listeners = proxy.listeners();
            let listeners = listeners.borrow();
            let status = listeners.iter().find(|status| status.listener.id.as_str() == id).unwrap();
            match &status.state {
                ListenerState::Bound { local } => *local,
                other => panic!("{id}: {other:?}"),
            }
        };
        let (edge, cluster) = (address("edge"), address("cluster"));
        let tls = has_tls.then(|| address("tls"));
        let gateway =
            Gateway { edge, cluster, tls, proxy: Some(proxy), snapshots, live, registry, log: self.log };
        gateway.usable(1).await;
        gateway
    }
}

pub(crate) fn listener(id: &str, bind: SocketAddr, role: Role) -> Listener {
    Listener { id: ListenerId::new(id), bind, role, protocol: Protocol::Http }
}

/// Puts a service's cluster and routes into a snapshot.
pub(crate) fn put_service(
    snapshot: &mut Snapshot,
    name: &str,
    endpoints: Vec<Endpoint>,
    policy: &ClusterPolicy,
) {
    let source = ResourceRef::new("Service", "default", name);
    let mut endpoints = endpoints;
    endpoints.sort_by(|a, b| a.key.cmp(&b.key));
    let id = ClusterId::new("default", name, 80);
    let cluster = Cluster {
        id: id.clone(),
        source: source.clone(),
        endpoints: endpoints.into(),
        policy: Arc::new(policy.clone()),
    };
    snapshot.clusters.insert(id.clone(), Arc::new(cluster));
    let host = |port| HostMatch { host: Hostname::parse(name).unwrap(), port };
    let prefix = format!("/{name}");
    let by_path = (
        Roles::ALL,
        vec![],
        Match { path: PathMatch::Prefix(prefix.clone()), ..Match::default() },
        vec![Filter::StripPrefix(prefix)],
    );
    let by_name =
        (Roles::CLUSTER, vec![host(PortMatch::Absent), host(PortMatch::Exact(80))], Match::default(), vec![]);
    for (part, (roles, hosts, matching, filters)) in [("path", by_path), ("name", by_name)] {
        let route = RouteId::new(format!("Service/default/{name}/{part}"));
        let specificity = [u32::from(part == "name"), u32::from(part == "path"), 0];
        let rule = Rule {
            rank: Rank {
                order: 0,
                specificity: std::cmp::Reverse(specificity),
                created: 0,
                tie: (route.as_str().into(), 0),
            },
            matches: vec![matching],
            filters,
            backends: vec![BackendRef { cluster: id.clone(), weight: 1 }],
        };
        let route = Route { id: route, source: source.clone(), roles, hosts, rules: vec![rule] };
        snapshot.routes.insert(route.id.clone(), Arc::new(route));
    }
}

impl Gateway {
    /// A gateway with one service, `orders`, at these addresses.
    pub(crate) async fn orders(addresses: &[SocketAddr]) -> Self {
        Setup::new().service("orders", addresses).start().await
    }

    /// A client that has sent its first request, and the connection on which all of it came to the endpoint.
    pub(crate) async fn asked(&self, upstream: &Upstream, path: &str) -> (Wire, Wire) {
        let mut client = Wire::connect(self.edge).await;
        client.write(&get(path)).await;
        let mut endpoint = upstream.accept().await;
        endpoint.next_message().await.unwrap();
        (client, endpoint)
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    pub(crate) fn take_proxy(&mut self) -> Proxy {
        self.proxy.take().unwrap()
    }

    async fn usable(&self, generation: u64) {
        let mut publishing = self.proxy().publishing();
        soon(publishing.wait_for(|published| *published >= generation)).await.unwrap();
    }

    /// Publishes a changed snapshot and waits until every worker can use it.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshots.borrow());
        change(&mut snapshot);
        snapshot.generation += 1;
        let generation = snapshot.generation;
        self.snapshots.send_replace(Arc::new(snapshot));
        self.usable(generation).await;
    }

    /// Changes the endpoints of `orders`.
    pub(crate) async fn set_endpoints(&self, endpoints: Vec<Endpoint>) {
        self.change(|snapshot| put_service(snapshot, "orders", endpoints, &ClusterPolicy::default())).await;
    }

    /// The value of a metric line, with its labels as they stand in the text format.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value; scraping is the only way to see it.
    pub(crate) async fn metric_is(&self, line: &str, value: f64) {
        let reached = async {
            while (self.metric(line) - value).abs() > 0.1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, reached).await;
        assert!(waited.is_ok(), "{line} is {} and not {value}", self.metric(line));
    }

    /// The first line of the access log for which this holds; waits for it.
    pub(crate) async fn logged(&self, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        soon(async {
            loop {
                let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
                let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
                if let Some(line) = lines.find(|line| holds(line)) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

/// An upstream whose connections the test plays by hand.
pub(crate) struct Upstream {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Upstream {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(crate) async fn accept(&self) -> Wire {
        Wire::new(soon(self.listener.accept()).await.unwrap().0)
    }

    /// Whether a connection comes within a short time; for tests that nothing comes.
    pub(crate) async fn is_called(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.listener.accept()).await.is_ok()
    }

    /// Answers every request with 200 and its own port as the body, for as long as the test runs.
    pub(crate) fn answer_all(self) -> SocketAddr {
        let address = self.address;
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                tokio::spawn(async move {
                    let mut wire = Wire::new(stream);
                    while let Some(request) = wire.next_message().await {
                        let body = address.port().to_string();
                        let close =
                            if request.head.contains("x-close") { "connection: close\r\n" } else { "" };
                        wire.write(&ok(&body, close)).await;
                    }
                });
            }
        });
        address
    }
}

/// A response with a body and extra header lines.
pub(crate) fn ok(body: &str, extra: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{extra}\r\n{body}", body.len())
}

/// An address on which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    listener.local_addr().unwrap()
}

/// One end of a TCP connection, spoken by hand.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request or response as it came over the wire.
#[derive(Debug)]
pub(crate) struct Message {
    /// The start line and the header lines.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(crate) fn reason(&self) -> &str {
        self.field("x-portolan-reason").unwrap_or("none")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(soon(TcpStream::connect(address)).await.unwrap())
    }

    pub(crate) async fn write(&mut self, text: &str) {
        soon(self.stream.write_all(text.as_bytes())).await.unwrap();
    }

    async fn fill(&mut self) -> usize {
        soon(self.stream.read_buf(&mut self.buffer)).await.unwrap_or(0)
    }

    /// The next head; `None` if the other side closes before it is whole.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(head[..end].to_vec()).unwrap());
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// So many bytes; fewer if the other side closes before.
    pub(crate) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length && self.fill().await > 0 {}
        let rest = self.buffer.split_off(length.min(self.buffer.len()));
        std::mem::replace(&mut self.buffer, rest)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// The next whole message, its body by `Content-Length` or in chunks; `None` if it does not come whole.
    pub(crate) async fn next_message(&mut self) -> Option<Message> {
        let head = self.head().await?;
        let message = Message { head, body: Vec::new() };
        self.body_of(message).await
    }

    /// The same for an answer to HEAD, or one without a body whatever its fields say.
    pub(crate) async fn next_bare(&mut self) -> Option<Message> {
        Some(Message { head: self.head().await?, body: Vec::new() })
    }

    async fn body_of(&mut self, mut message: Message) -> Option<Message> {
        if message.field("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.split(';').next()?, 16).unwrap();
                let chunk = self.bytes(size).await;
                (chunk.len() == size).then_some(())?;
                message.body.extend(chunk);
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Some(message);
                }
                self.line().await?;
            }
        }
        let length = message.field("content-length").map_or(0, |length| length.parse().unwrap());
        message.body = self.bytes(length).await;
        (message.body.len() == length).then_some(message)
    }

    /// Sends a request and reads the answer to it.
    pub(crate) async fn ask(&mut self, request: &str) -> Message {
        self.write(request).await;
        self.next_message().await.expect("an answer")
    }

    /// Waits until the other side has closed and nothing is left to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().await == 0
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A request for the edge listener.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n")
}

/// A request with a body.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
