//! `portolan run --files DIR`: traffic, pages, drain.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::gateway::Gateway;
use crate::http::{fetch, send};

/// An upstream that answers every request with its name, one request a connection; a path with `slow` waits for the
/// test's word first.
pub(crate) fn upstream(name: &'static str) -> (SocketAddr, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let wait = std::sync::Arc::clone(&wait);
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                if head.windows(4).any(|window| window == b"slow") {
                    wait.lock().unwrap().recv().unwrap_or_default();
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
                    name.len()
                );
                drop(stream.write_all(answer.as_bytes()));
            });
        }
    });
    (address, go)
}

pub(crate) fn manifest(service: &str, annotations: &str, endpoints: &[SocketAddr]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {service}\n  namespace: default\n  annotations:\n    \
         portolan.dev/expose: \"true\"\n{annotations}spec:\n  ports:\n  - {{name: http, port: 80}}\n"
    );
    for (number, endpoint) in endpoints.iter().enumerate() {
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{number}\n  namespace: \
             default\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports:\n- {{name: http, \
             port: {}}}\nendpoints:\n- addresses: [{}]\n",
            endpoint.port(),
            endpoint.ip()
        );
    }
    text
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    let hidden = folder.join(format!(".{name}.tmp"));
    std::fs::write(&hidden, text).unwrap();
    std::fs::rename(hidden, folder.join(name)).unwrap();
}

#[test]
fn a_manifest_becomes_a_route_and_a_changed_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _go) = upstream("a");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[a]));
    let mut gateway = Gateway::start(folder.path(), &[]);
    let answer = fetch(gateway.edge, "/orders/7").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "a"));

    let (b, _go) = upstream("b");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[b]));
    gateway
        .until("the new endpoint answers", |gateway| fetch(gateway.edge, "/orders/7").unwrap().body == "b");

    // A caller inside the Kubernetes cluster, by the Service's own name in absolute form, as `http_proxy` makes it.
    let absolute = "GET http://orders/7 HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    assert_eq!(send(gateway.cluster, absolute).unwrap().body, "b");
    assert_eq!(send(gateway.edge, absolute).unwrap().status, 404);

    write(folder.path(), "orders.yaml", "kind: [half");
    gateway.until("the broken file is a finding", |gateway| {
        fetch(gateway.admin, "/findings").unwrap().body.contains("orders.yaml")
    });
    assert_eq!(fetch(gateway.edge, "/orders/7").unwrap().body, "b", "the last good manifest serves on");

    std::fs::remove_file(folder.path().join("orders.yaml")).unwrap();
    gateway.until("the route is gone", |gateway| fetch(gateway.edge, "/orders/7").unwrap().status == 404);
}

#[test]
fn the_pages_show_what_is_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _go) = upstream("a");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[a]));
    write(folder.path(), "odd.yaml", &manifest("odd", "    portolan.dev/balance: \"loudest\"\n", &[a]));
    let mut gateway = Gateway::start(folder.path(), &[]);
    assert_eq!(fetch(gateway.edge, "/orders/7").unwrap().status, 200);

    let table = fetch(gateway.admin, "/table").unwrap().json().to_string();
    assert!(table.contains("default/orders:80") && table.contains(&a.to_string()), "{table}");
    let findings = fetch(gateway.admin, "/findings").unwrap().json().to_string();
    assert!(findings.contains("odd") && findings.contains("loudest"), "{findings}");
    let why =
        fetch(gateway.admin, "/explain?url=http://shop.test/orders/7&method=GET").unwrap().json().to_string();
    assert!(why.contains("default/orders:80"), "{why}");
    let wrong = fetch(gateway.admin, "/explain?url=::").unwrap();
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    assert_eq!(fetch(gateway.status, "/livez").unwrap().status, 200);
    assert_eq!(
        fetch(gateway.status, "/table").unwrap().status,
        404,
        "the status pages show no more than they should"
    );
    gateway.until("the request is counted", |gateway| {
        let metrics = fetch(gateway.status, "/metrics").unwrap().body;
        metrics.lines().any(|line| {
            line.starts_with("portolan_requests_total{") && line.contains("2xx") && line.ends_with(" 1")
        })
    });
    let metrics = fetch(gateway.status, "/metrics").unwrap().body;
    for family in [
        "portolan_findings",
        "portolan_table_generation",
        "portolan_convergence_seconds",
        "portolan_endpoints",
    ] {
        assert!(metrics.contains(family), "{family} is missing in:\n{metrics}");
    }
}

#[test]
fn callers_of_the_pages_who_say_nothing_are_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), &[]);
    let mut silent = TcpStream::connect(gateway.status).unwrap();
    silent.write_all(b"GET /livez HT").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("the gateway ends the connection by itself");
    assert_eq!(fetch(gateway.status, "/livez").unwrap().status, 200);
}

#[test]
fn admin_pages_with_a_token_answer_only_those_who_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef-canary\n").unwrap();
    let manifests = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(manifests.path(), &["--admin-token-file", token.to_str().unwrap()]);
    assert_eq!(fetch(gateway.admin, "/table").unwrap().status, 401);
    let with = |token: &str| {
        let request = format!(
            "GET /table HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        send(gateway.admin, &request).unwrap().status
    };
    assert_eq!(with("0123456789abcdef-canarz"), 401);
    assert_eq!(with("0123456789abcdef-canary"), 200);
}

#[test]
fn a_new_admin_token_counts_without_a_restart_and_a_bad_file_changes_nothing() {
    let manifests = tempfile::tempdir().unwrap();
    // As the kubelet mounts a Secret: the file is a link through a link that is swapped.
    let mount = tempfile::tempdir().unwrap();
    let place = |version: &str, token: &str| {
        let versioned = mount.path().join(version);
        std::fs::create_dir(&versioned).unwrap();
        std::fs::write(versioned.join("token"), token).unwrap();
        std::os::unix::fs::symlink(version, mount.path().join("new")).unwrap();
        std::fs::rename(mount.path().join("new"), mount.path().join("..data")).unwrap();
    };
    place("..1", "0123456789abcdef-first");
    let token = mount.path().join("token");
    std::os::unix::fs::symlink("..data/token", &token).unwrap();
    let mut gateway = Gateway::start(manifests.path(), &["--admin-token-file", token.to_str().unwrap()]);
    let with = |gateway: &Gateway, token: &str| {
        let head = format!("Authorization: Bearer {token}\r\nConnection: close");
        send(gateway.admin, &format!("GET /findings HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).unwrap()
    };
    place("..2", "0123456789abcdef-second");
    gateway.until("the new token counts", |gateway| with(gateway, "0123456789abcdef-second").status == 200);
    assert_eq!(with(&gateway, "0123456789abcdef-first").status, 401);
    place("..3", "short");
    gateway.until("the bad file is a finding", |gateway| {
        with(gateway, "0123456789abcdef-second").body.contains("UnusableAdminToken")
    });
    place("..4", "0123456789abcdef-third");
    gateway.until("the finding is gone", |gateway| with(gateway, "0123456789abcdef-third").body == "[]");
}

#[test]
fn the_access_log_has_one_json_line_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _go) = upstream("a");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[a]));
    let mut gateway = Gateway::start(folder.path(), &["--access-log", "all"]);
    let request = "GET /orders/7?token=canary-secret HTTP/1.1\r\nHost: a\r\nAuthorization: canary-secret\r\nConnection: close\r\n\r\n";
    assert_eq!(send(gateway.edge, request).unwrap().status, 200);
    let text = gateway.next_line();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["status"], 200, "{line}");
    assert_eq!(line["path"], "/orders/7", "{line}");
    assert_eq!(line["cluster"], "default/orders:80", "{line}");
    assert!(!text.contains("canary-secret"), "secrets stay out of the log: {text}");
}

#[test]
fn sigterm_lets_requests_finish_and_ends_with_zero() {
    let folder = tempfile::tempdir().unwrap();
    let (a, go) = upstream("a");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[a]));
    let mut gateway = Gateway::start(folder.path(), &["--drain-delay", "1s", "--drain-timeout", "10s"]);
    let edge = gateway.edge;
    let running = std::thread::spawn(move || fetch(edge, "/orders/slow"));
    gateway.until("the slow request has arrived", |gateway| {
        let table = fetch(gateway.admin, "/table").unwrap().body;
        table.contains("\"in_flight\":1")
    });
    gateway.terminate();
    gateway.until("readiness fails", |gateway| fetch(gateway.status, "/readyz").unwrap().status == 503);
    assert_eq!(fetch(edge, "/orders/7").unwrap().status, 200, "accepting goes on for the drain delay");
    // Once the delay is over new connections are refused, while the slow request still runs.
    gateway.until("accepting has ended", |gateway| TcpStream::connect(gateway.edge).is_err());
    go.send(()).unwrap();
    assert_eq!(running.join().unwrap().unwrap().body, "a");
    assert!(gateway.wait().success());
}

#[test]
fn a_second_sigterm_ends_within_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _go) = upstream("a");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[a]));
    let mut gateway = Gateway::start(folder.path(), &["--drain-delay", "60s", "--drain-timeout", "60s"]);
    gateway.terminate();
    gateway.until("readiness fails", |gateway| fetch(gateway.status, "/readyz").unwrap().status == 503);
    let second = Instant::now();
    gateway.terminate();
    gateway.wait();
    assert!(second.elapsed() < Duration::from_secs(2), "{:?}", second.elapsed());
}

#[test]
fn a_file_of_fifty_megabytes_is_a_finding_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _go) = upstream("a");
    write(folder.path(), "orders.yaml", &manifest("orders", "", &[a]));
    write(folder.path(), "huge.yaml", &"x: y\n".repeat(10_000_000));
    let gateway = Gateway::start(folder.path(), &[]);
    assert_eq!(fetch(gateway.edge, "/orders/7").unwrap().body, "a");
    let findings = fetch(gateway.admin, "/findings").unwrap().body;
    assert!(findings.contains("huge.yaml"), "{findings}");
}
