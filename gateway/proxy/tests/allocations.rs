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
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
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
const LIMITS: [(&str, AccessLog, Ask, usize); 4] = [
    ("GET", AccessLog::Errors, Ask::Get, 1),
    ("GET with a line in the access log", AccessLog::All, Ask::Get, 3),
    ("POST 10 KiB", AccessLog::Errors, Ask::Post(10 * 1024), 1),
    ("GET over HTTP/2", AccessLog::Errors, Ask::Http2, 1),
];

#[derive(Clone, Copy)]
enum Ask {
    Get,
    /// With a body of so many bytes.
    Post(usize),
    Http2,
}

/// One test, since two at once would count each other's.
#[tokio::test]
async fn a_request_on_a_connection_that_is_kept_allocates_no_more_than_this() {
    let mut faults = Vec::new();
    for (what, access_log, ask, limit) in LIMITS {
        let allocations = allocations(access_log, ask).await;
        println!("{what}: {allocations:.2} allocations");
        // Halves come from growth that is shared by several requests.
        if allocations > limit as f64 + 0.5 {
            faults.push(format!("{what}: {allocations:.2} allocations for each request, and not {limit}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Allocations (grown ones too) for each request, on one connection, one after another.
async fn allocations(access_log: AccessLog, ask: Ask) -> f64 {
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
        let mut ask: Box<dyn FnMut()> = match ask {
            Ask::Get => ask_http1(local, 0),
            Ask::Post(body) => ask_http1(local, body),
            Ask::Http2 => ask_http2(local),
        };
        // Whatever is made once is made in these.
        (0..200).for_each(|_| ask());
        let counted = Region::new(COUNTED);
        (0..REQUESTS).for_each(|_| ask());
        counted.change()
    });
    let counted = counted.await.unwrap();
    (counted.allocations + counted.reallocations) as f64 / REQUESTS as f64
}

fn ask_http1(gateway: SocketAddr, body: usize) -> Box<dyn FnMut()> {
    let method = if body == 0 { "GET" } else { "POST" };
    let head = format!("{method} /{}/items/7 HTTP/1.1\r\nHost: shop.example.com\r\n", world::name(0));
    let length = if body == 0 { String::new() } else { format!("Content-Length: {body}\r\n") };
    let message = format!("{head}User-Agent: test\r\nAccept: */*\r\n{length}\r\n{}", "x".repeat(body));
    let mut wire = Wire::connect(gateway).unwrap();
    Box::new(move || wire.ask(message.as_bytes()).unwrap())
}

fn ask_http2(gateway: SocketAddr) -> Box<dyn FnMut()> {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_nodelay(true).unwrap();
    // Settings that say nothing, and room for all answers.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(b"\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0").unwrap();
    let path = format!("/{}/items/7", world::name(0));
    // The first request puts what all say into the table, but for the path, as clients do.
    let mut first = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    first.extend(path.bytes());
    let mut again = first.clone();
    first.extend(b"\x41\x10shop.example.com\x7a\x04test\x53\x03*/*");
    again.extend([0xc0, 0xbf, 0xbe]);
    let mut stream_number = 1u32;
    Box::new(move || {
        let block = if stream_number == 1 { &first } else { &again };
        let mut frame = [0; 64];
        frame[..5].copy_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5]);
        frame[5..9].copy_from_slice(&stream_number.to_be_bytes());
        frame[9..9 + block.len()].copy_from_slice(block);
        stream.write_all(&frame[..9 + block.len()]).unwrap();
        stream_number += 2;
        loop {
            let (mut head, mut payload) = ([0; 9], [0; 1024]);
            stream.read_exact(&mut head).unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut payload[..length]).unwrap();
            assert!(head[3] != 1 || payload[0] == 0x88, "the answer is not 200");
            if head[3] == 0 && head[4] & 1 == 1 {
                return;
            }
        }
    })
}
