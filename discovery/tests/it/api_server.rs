//! An API server in the test's own process that speaks list, watch, get, create, replace and patch in JSON, and can be told
//! to fail in many ways.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How the server answers requests on one collection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// This status with this text, and perhaps `Retry-After`.
    Status(u16, &'static str, Option<u64>),
    /// The request is read and never answered.
    Hang,
    /// 200, and this is all.
    Body(&'static [u8]),
    /// A watch is accepted and then nothing is ever sent on it, not even its end.
    Silence,
}

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// Lists, by pages.
    List,
    /// Watches with a first picture.
    StreamingList,
    /// Watches from a version.
    Watch,
    /// One object.
    Get,
}

/// A request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: HashMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) ask: Option<Ask>,
}

pub(crate) struct ApiServer {
    address: SocketAddr,
    state: Arc<State>,
    tasks: Option<JoinSet<()>>,
}

struct State {
    inner: Mutex<Inner>,
    signals: broadcast::Sender<Signal>,
    requests: watch::Sender<Vec<Seen>>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    /// By collection path without namespace (`/api/v1/services`), namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Event>,
    /// Watches from a version below are too old.
    oldest: u64,
    faults: HashMap<(String, Ask), Fault>,
    /// Whether streaming lists end in a bookmark, as the API says.
    ends_initial_events: bool,
    page: usize,
}

#[derive(Clone)]
struct Event {
    version: u64,
    collection: String,
    namespace: String,
    kind: &'static str,
    object: Value,
}

#[derive(Clone)]
enum Signal {
    Event(Event),
    /// These bytes to all watches of this collection.
    Raw(String, Bytes),
    /// All watches end.
    Close,
}

pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/configmaps";
pub(crate) const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";
pub(crate) const EVENTS: &str = "/apis/events.k8s.io/v1/events";

impl ApiServer {
    /// A server without objects.
    pub(crate) async fn start() -> Self {
        let mut server = Self::stopped().await;
        server.resume().await;
        server
    }

    /// A server at whose address nobody listens yet.
    pub(crate) async fn stopped() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let inner = Inner { version: 100, ends_initial_events: true, page: 500, ..Inner::default() };
        let (signals, requests) = (broadcast::Sender::new(1024), watch::Sender::default());
        Self { address, state: Arc::new(State { inner: Mutex::new(inner), signals, requests }), tasks: None }
    }

    /// Listens (again), with the objects that it had.
    pub(crate) async fn resume(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let (listener, state) = (socket.listen(64).unwrap(), self.state.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    // How a connection ends is the client's business.
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        self.tasks = Some(tasks);
    }

    /// Stops listening and breaks every connection.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    /// A client for it.
    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// Writes an object and tells the watches.
    pub(crate) fn put(&self, collection: &str, object: Value) {
        self.state.inner.lock().unwrap().put(collection, object, &self.state.signals);
    }

    /// Deletes an object and tells the watches.
    pub(crate) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut inner = self.state.inner.lock().unwrap();
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let object = inner.objects.remove(&key).unwrap();
        inner.tell("DELETED", collection, namespace, object, &self.state.signals);
    }

    /// An object as it is now.
    pub(crate) fn object(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.inner.lock().unwrap().objects.get(&key).cloned()
    }

    /// All objects of a collection.
    pub(crate) fn objects(&self, collection: &str) -> Vec<Value> {
        let inner = self.state.inner.lock().unwrap();
        inner
            .objects
            .iter()
            .filter(|((of, ..), _)| of == collection)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Requests of this sort on the collection fail so from now on.
    pub(crate) fn fail(&self, collection: &str, asks: &[Ask], fault: Fault) {
        let mut inner = self.state.inner.lock().unwrap();
        for ask in asks {
            inner.faults.insert((collection.to_owned(), *ask), fault.clone());
        }
    }

    /// All faults are over.
    pub(crate) fn heal(&self) {
        self.state.inner.lock().unwrap().faults.clear();
    }

    /// Streaming lists begin and never end in a bookmark: what servers do that do not know the parameter.
    pub(crate) fn ignore_send_initial_events(&self) {
        self.state.inner.lock().unwrap().ends_initial_events = false;
    }

    /// So many objects are on one page at most.
    pub(crate) fn set_page(&self, size: usize) {
        self.state.inner.lock().unwrap().page = size;
    }

    /// Every version so far is too old for a watch.
    pub(crate) fn expire(&self) {
        let mut inner = self.state.inner.lock().unwrap();
        inner.version += 1;
        inner.oldest = inner.version;
    }

    /// The store is put back to a version long before, without its history; the objects stay for the test to change.
    /// Watches that are open go on, watches from versions to come are accepted: nobody is told.
    pub(crate) fn put_back(&self) {
        let mut inner = self.state.inner.lock().unwrap();
        inner.version = 10;
        inner.history.clear();
    }

    /// Ends all watches.
    pub(crate) fn close_watches(&self) {
        self.state.signals.send(Signal::Close).ok();
    }

    /// Sends these bytes on all watches of the collection.
    pub(crate) fn send_raw(&self, collection: &str, bytes: impl Into<Bytes>) {
        self.state.signals.send(Signal::Raw(collection.to_owned(), bytes.into())).ok();
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.state.requests.borrow().clone()
    }

    /// Waits until the requests satisfy `condition`.
    pub(crate) async fn wait_for(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) {
        let mut requests = self.state.requests.subscribe();
        let wait = requests.wait_for(|requests| condition(requests));
        if timeout(Duration::from_secs(10), wait).await.is_err() {
            panic!("{what}: {:#?}", self.requests());
        }
    }

    /// Waits for one more request of this sort on the collection.
    pub(crate) async fn wait_for_one_more(&self, collection: &str, ask: Ask) {
        let count = |requests: &[Seen]| requests.iter().filter(|it| it.is(collection, ask)).count();
        let before = count(&self.requests());
        self.wait_for(&format!("one more {ask:?} of {collection}"), |requests| count(requests) > before)
            .await;
    }
}

impl Seen {
    pub(crate) fn is(&self, collection: &str, ask: Ask) -> bool {
        self.ask == Some(ask) && parse(&self.path).0 == collection
    }
}

impl Inner {
    fn put(&mut self, collection: &str, mut object: Value, signals: &broadcast::Sender<Signal>) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-of-{name}").into();
        }
        let key = (collection.to_owned(), namespace.clone(), name);
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key, object.clone());
        self.version -= 1;
        self.tell(kind, collection, &namespace, object.clone(), signals);
        object
    }

    fn tell(
        &mut self,
        kind: &'static str,
        collection: &str,
        namespace: &str,
        mut object: Value,
        signals: &broadcast::Sender<Signal>,
    ) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let (collection, namespace) = (collection.to_owned(), namespace.to_owned());
        let event = Event { version: self.version, collection, namespace, kind, object };
        self.history.push(event.clone());
        signals.send(Signal::Event(event)).ok();
    }

    fn selected(&self, wanted: &Wanted) -> Vec<Value> {
        let objects = self.objects.iter().filter(|((collection, ..), _)| *collection == wanted.collection);
        objects.map(|(_, object)| object.clone()).filter(|object| wanted.selects(object)).collect()
    }
}

/// What a request is about.
#[derive(Clone)]
struct Wanted {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    query: HashMap<String, String>,
}

impl Wanted {
    fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let namespace = self.namespace.as_ref().is_none_or(|wanted| metadata["namespace"] == **wanted);
        let label = self.query.get("labelSelector").is_none_or(|label| !metadata["labels"][label].is_null());
        let field = self.query.get("fieldSelector").and_then(|text| text.strip_prefix("metadata.name="));
        namespace && label && field.is_none_or(|name| metadata["name"] == *name)
    }
}

/// The collection without its namespace, the namespace, and the name.
fn parse(path: &str) -> (String, Option<String>, Option<String>) {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let head = if parts[0] == "api" { 2 } else { 3 };
    let (prefix, rest) = parts.split_at(head.min(parts.len()));
    let text = |part: &str| Some(part.to_owned());
    let (plural, namespace, name) = match rest {
        ["namespaces"] => ("namespaces", None, None),
        ["namespaces", name] => ("namespaces", None, text(name)),
        ["namespaces", namespace, plural] => (*plural, text(namespace), None),
        ["namespaces", namespace, plural, name] => (*plural, text(namespace), text(name)),
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, None, text(name)),
        _ => ("unknown", None, None),
    };
    (format!("/{}/{plural}", prefix.join("/")), namespace, name)
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Stream>, Infallible> {
    let (parts, body) = request.into_parts();
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let query: HashMap<_, _> =
        pairs.map(|(name, value)| (name.to_owned(), value.replace("%2F", "/").replace("%3D", "="))).collect();
    let (collection, namespace, name) = parse(parts.uri.path());
    let ask = (parts.method == Method::GET).then(|| {
        match (query.get("watch"), query.get("sendInitialEvents"), &name) {
            (Some(_), Some(_), _) => Ask::StreamingList,
            (Some(_), None, _) => Ask::Watch,
            (None, _, Some(_)) => Ask::Get,
            (None, _, None) => Ask::List,
        }
    });
    let seen = Seen {
        at: Instant::now(),
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: query.clone(),
        headers: parts.headers,
        ask,
    };
    state.requests.send_modify(|requests| requests.push(seen));
    // A write has the sort of fault that a read of one object has.
    let fault_key = (collection.clone(), ask.unwrap_or(Ask::Get));
    let fault = state.inner.lock().unwrap().faults.get(&fault_key).cloned();
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Status(code, text, retry_after)) => return Ok(status(code, text, retry_after)),
        Some(Fault::Body(bytes)) => return Ok(Response::new(Stream::Whole(Some(bytes.into())))),
        Some(Fault::Silence) => return Ok(Response::new(silence())),
        None => {}
    }
    let wanted = Wanted { collection, namespace, name, query };
    // Test traffic from this process alone.
    #[allow(clippy::disallowed_methods, reason = "it is limited")]
    let body = Limited::new(body, 1 << 20).collect().await.unwrap().to_bytes();
    Ok(match ask {
        Some(Ask::List) => list(&state, &wanted),
        Some(Ask::StreamingList | Ask::Watch) => watch(&state, wanted),
        Some(Ask::Get) | None => object(&state, &parts.method, &wanted, &body),
    })
}

fn list(state: &State, wanted: &Wanted) -> Response<Stream> {
    let inner = state.inner.lock().unwrap();
    let start: usize = wanted.query.get("continue").map_or(0, |token| token.parse().unwrap());
    let limit = wanted.query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap()).min(inner.page);
    let all = inner.selected(wanted);
    let more = all.len() > start + limit;
    let items: Vec<_> = all.into_iter().skip(start).take(limit).collect();
    let token = if more { (start + limit).to_string() } else { String::new() };
    json_response(
        200,
        &json!({
            "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": inner.version.to_string(), "continue": token},
        }),
    )
}

fn object(state: &State, method: &Method, wanted: &Wanted, body: &[u8]) -> Response<Stream> {
    let mut inner = state.inner.lock().unwrap();
    let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = wanted.name.clone().or_else(|| sent["metadata"]["name"].as_str().map(Into::into)).unwrap();
    let namespace = wanted.namespace.clone().unwrap_or_default();
    let found = inner.objects.get(&(wanted.collection.clone(), namespace.clone(), name)).cloned();
    match (method.as_str(), found) {
        ("POST", Some(_)) => return reasoned(409, "AlreadyExists", "it is there"),
        ("POST", None) => {}
        (_, None) => return reasoned(404, "NotFound", "it is not there"),
        ("GET", Some(found)) => return json_response(200, &found),
        ("PUT", Some(found)) => {
            let version = &sent["metadata"]["resourceVersion"];
            if !version.is_null() && *version != found["metadata"]["resourceVersion"] {
                return reasoned(409, "Conflict", "the object has been modified");
            }
        }
        (_, Some(mut found)) => {
            for (field, value) in sent.as_object().unwrap() {
                found[field] = value.clone();
            }
            sent = found;
        }
    }
    sent["metadata"]["namespace"] = namespace.into();
    let written = inner.put(&wanted.collection, sent, &state.signals);
    json_response(if method == Method::POST { 201 } else { 200 }, &written)
}

fn watch(state: &State, wanted: Wanted) -> Response<Stream> {
    let inner = state.inner.lock().unwrap();
    let mut signals = state.signals.subscribe();
    let initial = wanted.query.contains_key("sendInitialEvents");
    let mut first = Vec::new();
    let mut last = inner.version;
    // Nothing that is not newer is told on a watch, however old the server has become since.
    let from: u64 = wanted.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    if initial {
        first.extend(inner.selected(&wanted).into_iter().map(|object| line("ADDED", &object)));
        if inner.ends_initial_events {
            first.push(bookmark(inner.version, true));
        }
    } else {
        if from < inner.oldest {
            return reasoned(410, "Expired", "too old resource version");
        }
        let missed = inner.history.iter().filter(|event| event.version > from && wanted.wants(event));
        first.extend(missed.map(|event| line(event.kind, &event.object)));
    }
    let seconds = wanted.query.get("timeoutSeconds").map_or(300, |text| text.parse().unwrap());
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let end = Instant::now() + Duration::from_secs(seconds);
        for bytes in first {
            if sender.send(bytes).await.is_err() {
                return;
            }
        }
        loop {
            let signal = tokio::select! {
                signal = signals.recv() => signal,
                () = tokio::time::sleep_until(end) => {
                    if last >= from {
                        sender.send(bookmark(last, false)).await.ok();
                    }
                    return;
                }
                () = sender.closed() => return,
            };
            let bytes = match signal.unwrap() {
                Signal::Event(event) => {
                    last = event.version;
                    if !wanted.wants(&event) || event.version <= from {
                        continue;
                    }
                    line(event.kind, &event.object)
                }
                Signal::Raw(collection, bytes) if collection == wanted.collection => bytes,
                Signal::Raw(..) => continue,
                Signal::Close => return,
            };
            if sender.send(bytes).await.is_err() {
                return;
            }
        }
    });
    Response::new(Stream::Live(receiver, None))
}

impl Wanted {
    fn wants(&self, event: &Event) -> bool {
        let namespace = self.namespace.as_ref().is_none_or(|namespace| *namespace == event.namespace);
        self.collection == event.collection && namespace && self.selects(&event.object)
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

fn bookmark(version: u64, ends_initial_events: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if ends_initial_events {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", &json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata}))
}

fn json_response(code: u16, value: &Value) -> Response<Stream> {
    let mut response = Response::new(Stream::Whole(Some(value.to_string().into())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn reasoned(code: u16, reason: &str, text: &str) -> Response<Stream> {
    json_response(
        code,
        &json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": text, "reason": reason, "code": code,
        }),
    )
}

fn status(code: u16, text: &str, retry_after: Option<u64>) -> Response<Stream> {
    let mut response = reasoned(code, if code == 403 { "Forbidden" } else { "" }, text);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}

fn silence() -> Stream {
    let (sender, receiver) = mpsc::channel(1);
    Stream::Live(receiver, Some(sender))
}

/// A body: all of it, or what comes over a channel (whose sender may be kept, so that it never ends).
enum Stream {
    Whole(Option<Bytes>),
    Live(
        mpsc::Receiver<Bytes>,
        #[expect(dead_code, reason = "it is held so that the stream does not end")]
        Option<mpsc::Sender<Bytes>>,
    ),
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => std::task::Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Live(receiver, _) => {
                receiver.poll_recv(context).map(|bytes| bytes.map(|it| Ok(Frame::data(it))))
            }
        }
    }
}

/// A Service that asks to be exposed, with one port named `http`.
pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"portolan.dev/expose": "true"}},
        "spec": {"type": "ClusterIP", "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

/// A slice of that Service with these addresses, all ready.
pub(crate) fn slice(namespace: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"namespace": namespace, "name": format!("{service}-x1"),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// A namespace, exposed or not.
pub(crate) fn namespace(name: &str, exposed: bool) -> Value {
    let mut object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
    if exposed {
        object["metadata"]["labels"] = json!({"portolan.dev/expose": "true"});
    }
    object
}
