//! `--snapshot-file`: what a gateway that was killed serves when it starts again.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use portolan_discovery::snapshot_file::{self, Origin};
use portolan_model::Snapshot;

use crate::gateway::{Gateway, free};
use crate::http::fetch;
use crate::run::{manifest, upstream, write};

/// A gateway that starts while its API server is away is ready within this: two seconds, and what a machine at work adds.
/// One that waits for the API server is not ready before its next try of half a minute.
const SOON: Duration = Duration::from_secs(10);

/// What the gateway of these tests takes its pictures from.
fn origin(source: &str, of: &str) -> Origin {
    let settings = [
        (source, of),
        ("namespaces", "all"),
        ("default-namespace", "default"),
        ("cluster-domain", "cluster.local"),
        ("expose", "annotated"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A gateway's folder: manifests, a snapshot file, a kubeconfig.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("manifests")).unwrap();
        Self(home)
    }

    fn manifests(&self) -> PathBuf {
        self.0.path().join("manifests")
    }

    fn snapshot(&self) -> PathBuf {
        self.0.path().join("snapshot")
    }

    /// Has a gateway on manifests write the file, and kills it.
    fn write_from_manifests(&self) {
        // Else the one of before would be taken for the new one.
        drop(std::fs::remove_file(self.snapshot()));
        let mut gateway = Gateway::start(&self.manifests(), &["--snapshot-file", text(&self.snapshot())]);
        gateway.until("the file is written", |_| self.snapshot().exists());
        gateway.kill();
    }

    /// The same picture as if it were of the API server at this address, last known to be right so long ago.
    fn write_as_of(&self, server: SocketAddr, age: SignedDuration) {
        self.write_from_manifests();
        let files = origin("files", text(&self.manifests()));
        let picture = snapshot_file::read(&self.snapshot(), &files, SOON).unwrap().unwrap();
        let snapshot = Snapshot {
            generation: picture.taken.generation,
            routes: picture.routes,
            clusters: picture.clusters,
            ..Snapshot::default()
        };
        let kubernetes = origin("kubernetes", &format!("http://{server}/"));
        snapshot_file::write(&self.snapshot(), &snapshot, Timestamp::now() - age, &kubernetes).unwrap();
    }

    /// Starts a gateway on the API server at this address, with everything that asks it something.
    fn start_on(&self, server: SocketAddr) -> Gateway {
        let kubeconfig = self.0.path().join("kubeconfig");
        let cluster = format!("{{name: a, cluster: {{server: 'http://{server}'}}}}");
        let context = "{name: a, context: {cluster: a, user: a}}";
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{cluster}]\ncontexts: [{context}]\n\
             users: [{{name: a, user: {{}}}}]\n"
        );
        std::fs::write(&kubeconfig, config).unwrap();
        Gateway::spawn(&[
            "--kubeconfig",
            text(&kubeconfig),
            "--snapshot-file",
            text(&self.snapshot()),
            "--node-name",
            "node1",
            "--config-map",
            "portolan",
        ])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn metric(gateway: &Gateway, name: &str) -> String {
    let page = fetch(gateway.status, "/metrics").unwrap().body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
}

fn restored(gateway: &Gateway) -> serde_json::Value {
    fetch(gateway.status, "/readyz").unwrap().json()["restored"].clone()
}

/// Starts on a server that does not answer, and sees the picture of before served, soon.
fn serves_from_the_file(home: &Home, server: SocketAddr) -> Gateway {
    let began = Instant::now();
    let mut gateway = home.start_on(server);
    gateway.ready();
    let took = began.elapsed();
    assert!(took < SOON, "it took {took:?}");
    assert_eq!(fetch(gateway.edge, "/orders/7").unwrap().body, "a");
    let readiness = fetch(gateway.status, "/readyz").unwrap().json();
    assert_eq!(readiness["table"], true, "{readiness}");
    assert_eq!(readiness["sources"][1]["synced"], false, "{readiness}");
    let age = readiness["restored"]["age_seconds"].as_u64();
    assert!(age.is_some_and(|age| (600..700).contains(&age)), "{readiness}");
    assert!(readiness["restored"]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{readiness}");
    assert_eq!(metric(&gateway, "portolan_snapshot_restored"), "1");
    gateway
}

#[test]
fn a_killed_gateway_whose_api_server_refuses_serves_from_the_file_and_says_so() {
    let home = Home::new();
    let (a, _go) = upstream("a");
    write(&home.manifests(), "orders.yaml", &manifest("orders", "", &[a]));
    let server = free();
    home.write_as_of(server, SignedDuration::from_mins(10));
    // Twice: a gateway that serves from the file does not make it younger, nor older.
    for _ in 0..2 {
        serves_from_the_file(&home, server).kill();
    }
}

#[test]
fn an_api_server_that_never_answers_holds_nothing_up() {
    let home = Home::new();
    let (a, _go) = upstream("a");
    write(&home.manifests(), "orders.yaml", &manifest("orders", "", &[a]));
    // The kernel accepts connections to it, and nobody reads what they say.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap();
    home.write_as_of(server, SignedDuration::from_mins(10));
    serves_from_the_file(&home, server);
}

#[test]
fn an_api_server_whose_packets_are_lost_holds_nothing_up() {
    let home = Home::new();
    let (a, _go) = upstream("a");
    write(&home.manifests(), "orders.yaml", &manifest("orders", "", &[a]));
    let (_full, _waiting, server) = lost();
    home.write_as_of(server, SignedDuration::from_mins(10));
    serves_from_the_file(&home, server);
}

/// An address at which the kernel drops every attempt to connect, because as many wait as may.
fn lost() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue must fill up");
    }
    (socket, waiting, address)
}

/// Starts on a server that does not answer, with a file that must not be used, and sees it refused for this reason.
fn refuses(home: &Home, server: SocketAddr, why: &str) {
    let mut gateway = home.start_on(server);
    gateway.until("the file is a finding", |gateway| {
        fetch(gateway.admin, "/findings").is_ok_and(|answer| answer.body.contains("SnapshotRefused"))
    });
    let findings = fetch(gateway.admin, "/findings").unwrap().body;
    assert!(findings.contains(why), "{findings} should say {why}");
    // Longer than a picture of before is held back.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        let answer = fetch(gateway.status, "/readyz").unwrap();
        assert_eq!((answer.status, &answer.json()["restored"]), (503, &serde_json::Value::Null));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(metric(&gateway, "portolan_snapshot_restored"), "0");
}

#[test]
fn a_file_that_is_too_old_or_no_snapshot_or_of_elsewhere_is_refused() {
    let home = Home::new();
    let (a, _go) = upstream("a");
    write(&home.manifests(), "orders.yaml", &manifest("orders", "", &[a]));
    let server = free();
    home.write_as_of(server, SignedDuration::from_mins(61));
    refuses(&home, server, "and at most 3600s are allowed");
    home.write_as_of(server, SignedDuration::ZERO);
    refuses(&home, free(), "it was taken elsewhere or under other settings: kubernetes was");
    std::fs::write(home.snapshot(), [0xff; 10_000]).unwrap();
    refuses(&home, server, "it is garbled");
}

#[test]
fn a_source_that_answers_is_not_waited_past_and_replaces_what_was_refused() {
    let home = Home::new();
    let (a, _go) = upstream("a");
    write(&home.manifests(), "orders.yaml", &manifest("orders", "", &[a]));
    home.write_from_manifests();

    let (b, _go) = upstream("b");
    write(&home.manifests(), "orders.yaml", &manifest("orders", "", &[b]));
    let snapshot = home.snapshot();
    let file = ["--snapshot-file", text(&snapshot)];
    let mut gateway = Gateway::start(&home.manifests(), &file);
    assert_eq!(fetch(gateway.edge, "/orders/7").unwrap().body, "b");
    assert!(restored(&gateway).is_null());
    gateway.kill();

    std::fs::write(home.snapshot(), "garbage").unwrap();
    let mut gateway = Gateway::start(&home.manifests(), &file);
    gateway.until("a good file is in its place", |gateway| {
        !fetch(gateway.admin, "/findings").unwrap().body.contains("SnapshotRefused")
    });
    let files = origin("files", text(&home.manifests()));
    assert!(snapshot_file::read(&home.snapshot(), &files, SOON).unwrap().is_some());
}

#[test]
fn a_file_that_cannot_be_written_is_a_finding_and_no_end() {
    let home = Home::new();
    let missing = home.0.path().join("missing/snapshot");
    let mut gateway = Gateway::start(&home.manifests(), &["--snapshot-file", text(&missing)]);
    gateway.until("it is a finding", |gateway| {
        fetch(gateway.admin, "/findings").unwrap().body.contains("missing/snapshot cannot be written")
    });
    assert_eq!(metric(&gateway, "portolan_snapshot_file_write_failures_total"), "1");
    assert_eq!(fetch(gateway.status, "/readyz").unwrap().status, 200);
}
