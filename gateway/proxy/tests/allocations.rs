//! How often a request allocates.
//!
//! A test binary of its own, because it counts every allocation of the process. The clients and the upstream here
//! allocate nothing while requests run, so what is left is the gateway's.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are test code as well")]

#[path = "../benches/instructions/wire.rs"]
#[allow(dead_code, reason = "shared with the bench, which needs more of it")]
mod wire;
#[path = "../benches/instructions/world.rs"]
#[allow(dead_code, reason = "shared with the bench, which needs more of it")]
mod world;

use std::alloc::System;
use std::io;
use std::sync::Arc;

use portolan_model::{Role, Snapshot};
use portolan_proxy::{AccessLog, AccessLogOutput, ListenerState, LiveConfig, Proxy, ProxyConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::watch;

use self::wire::Wire;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough that what happens now and then beside requests (a sweep, a turn of the control runtime) does not count.
const REQUESTS: usize = 1000;

/// What is asked, and how often that may allocate: as often as it does, so that one more is seen. Lower it when it is
/// less; 6 is the goal for a request without a body.
const LIMITS: [(&str, AccessLog, usize, usize); 3] = [
    ("GET", AccessLog::Errors, 0, 1),
    ("GET with a line in the access log", AccessLog::All, 0, 3),
    ("POST 10 KiB", AccessLog::Errors, 10 * 1024, 1),
];

/// One test, since two at once would count each other's.
#[tokio::test]
async fn a_request_on_a_connection_that_is_kept_allocates_no_more_than_this() {
    let mut faults = Vec::new();
    for (what, access_log, body, limit) in LIMITS {
        let allocations = allocations(access_log, body).await;
        println!("{what}: {allocations:.2} allocations");
        // Halves come from growth that is shared by several requests.
        if allocations > limit as f64 + 0.5 {
            faults.push(format!("{what}: {allocations:.2} allocations for each request, and not {limit}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Allocations (grown ones too) for each request, on one connection, one after another.
async fn allocations(access_log: AccessLog, body: usize) -> f64 {
    let upstream = wire::answer_all(102).unwrap();
    let mut snapshot = Snapshot { generation: 1, ..Snapshot::default() };
    world::listen(&mut snapshot, Role::Edge);
    world::put(&mut snapshot, 0, [upstream].into_iter(), &Arc::default());
    let (_snapshots, snapshots) = watch::channel(Arc::new(snapshot));
    let (_live, live) = watch::channel(Arc::new(LiveConfig { access_log, ..LiveConfig::default() }));
    let config = ProxyConfig {
        pseudonym: "portolan-test".into(),
        access_log: AccessLogOutput::Writer(Box::new(io::sink())),
        ..ProxyConfig::default()
    };
    let proxy = Proxy::start(config, live, snapshots, &prometheus::Registry::new()).unwrap();
    let mut listeners = proxy.listeners();
    let bound = listeners.wait_for(|listeners| !listeners.is_empty()).await.unwrap()[0].state.clone();
    let ListenerState::Bound { local } = bound else { panic!("the listener is {bound:?}") };

    let counted = tokio::task::spawn_blocking(move || {
        let method = if body == 0 { "GET" } else { "POST" };
        let head = format!("{method} /{}/items/7 HTTP/1.1\r\nHost: shop.example.com\r\n", world::name(0));
        let length = if body == 0 { String::new() } else { format!("Content-Length: {body}\r\n") };
        let message = format!("{head}User-Agent: test\r\nAccept: */*\r\n{length}\r\n{}", "x".repeat(body));
        let mut wire = Wire::connect(local).unwrap();
        let mut ask = |requests| (0..requests).for_each(|_| wire.ask(message.as_bytes()).unwrap());
        // Whatever is made once is made in these.
        ask(200);
        let counted = Region::new(COUNTED);
        ask(REQUESTS);
        counted.change()
    });
    let counted = counted.await.unwrap();
    (counted.allocations + counted.reallocations) as f64 / REQUESTS as f64
}
