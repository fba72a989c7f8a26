//! Rows of the catalogue that are more than bytes and an answer: what is measured while they run.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::bystander;
use crate::endpoint::{Arrival, Endpoint};
use crate::gateway::{Gateway, Service, until};
use crate::trial::{self, Client};

const MIB: usize = 1024 * 1024;
/// What one body may take in memory, in each direction, with what the allocator keeps for the next.
const BUFFERS_KIB: u64 = 3 * 1024;

#[test]
#[ignore = "a step of its own: cargo xtask test --only hostile"]
fn what_takes_long_or_much_is_bounded() {
    let endpoint = Endpoint::start();
    let gateway = Gateway::start(&[Service::new("ok", "ok.test", endpoint.address)], &[]);
    // Before anything is measured, so that what stays from the first requests is there.
    for number in 0..200 {
        bystander::ask(gateway.edge, &format!("first-{number}")).unwrap();
    }
    loops_are_cut(&gateway, &endpoint);
    a_body_of_100_gib_takes_no_memory(&gateway);
    chunks_of_one_byte_take_no_memory(&gateway);
    an_early_answer_ends_an_upload(&gateway);
    a_client_that_leaves_is_no_work_any_more(&gateway, &endpoint);
    gateway.end();
}

fn connect(gateway: &Gateway, number: u8) -> TcpStream {
    trial::connect(Ipv4Addr::new(127, 101, 0, number), gateway.edge).unwrap()
}

/// C34.
fn loops_are_cut(gateway: &Gateway, endpoint: &Endpoint) {
    let ask = |number: u8, via: &str| {
        let mut client = Client::new(connect(gateway, number));
        let via = if via.is_empty() { String::new() } else { format!("Via: {via}\r\n") };
        write!(client.stream, "GET /loop HTTP/1.1\r\nHost: ok.test\r\n{via}\r\n").unwrap();
        client.answer(&AtomicBool::new(false)).unwrap().unwrap()
    };
    assert_eq!(ask(1, "").status, 200);
    let first = endpoint.from("127.101.0.1");
    let Some(Arrival::Whole(request)) = first.first() else { panic!("it arrived: {first:?}") };
    let own = request.fields.first("via").expect("it is signed").to_owned();
    let answer = ask(2, &own);
    assert_eq!((answer.status, answer.reason.as_deref()), (508, Some("loop_detected")));
    assert_eq!(ask(3, &format!("1.1 another, {own} (a comment), 1.0 third")).status, 508);
    // Fifty others, none of them this one.
    assert_eq!(ask(4, &["1.1 other"; 50].join(", ")).status, 200);
    assert!(endpoint.from("127.101.0.2").is_empty() && endpoint.from("127.101.0.3").is_empty());
}

/// D19.
fn a_body_of_100_gib_takes_no_memory(gateway: &Gateway) {
    let mut stream = connect(gateway, 10);
    write!(stream, "POST /sink HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 107374182400\r\n\r\n").unwrap();
    let before = gateway.memory_kib();
    let mut most = before;
    for _ in 0..256 {
        stream.write_all(&vec![b'a'; MIB]).unwrap();
        most = most.max(gateway.memory_kib());
    }
    assert!(most <= before + BUFFERS_KIB, "from {before} to {most} KiB");
}

/// F19.
fn chunks_of_one_byte_take_no_memory(gateway: &Gateway) {
    let upload = |number: u8, piece: &[u8], times: usize| {
        let mut stream = connect(gateway, number);
        write!(stream, "POST /sink HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let (before, start) = (gateway.memory_kib(), gateway.processor_time());
        let mut most = before;
        for number in 0..times {
            stream.write_all(piece).unwrap();
            most = most.max(gateway.memory_kib());
            // Nobody else waits for it.
            let asked = Instant::now();
            bystander::ask(gateway.edge, &format!("beside-{number}")).unwrap();
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        let answer = Client::new(stream).answer(&AtomicBool::new(false)).unwrap().unwrap();
        assert_eq!(answer.status, 200);
        assert!(most <= before + BUFFERS_KIB, "from {before} to {most} KiB");
        gateway.processor_time() - start
    };
    let large = [format!("{MIB:x}\r\n").as_bytes(), &vec![b'a'; MIB], b"\r\n"].concat();
    let small = b"1\r\na\r\n".repeat(MIB / 6);
    // As many bytes on the wire.
    let (large, small) = (upload(11, &large, 4), upload(12, &small, 4));
    // What a chunk costs beside its bytes, in a build without optimisation.
    let each = (small.saturating_sub(large)) / u32::try_from(4 * MIB / 6).unwrap();
    assert!(each < Duration::from_micros(50), "{each:?} for each chunk");
}

/// G11.
fn an_early_answer_ends_an_upload(gateway: &Gateway) {
    let mut stream = connect(gateway, 20);
    write!(stream, "POST /early HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 1073741824\r\n\r\n").unwrap();
    let mut client = Client::new(stream.try_clone().unwrap());
    let (answer, stopped) = std::thread::scope(|scope| {
        let upload = scope.spawn(move || {
            let piece = vec![b'a'; 64 * 1024];
            while stream.write_all(&piece).is_ok() {}
            Instant::now()
        });
        let answer = client.answer(&AtomicBool::new(false));
        let answered = Instant::now();
        // It is not kept open for an upload that nobody reads.
        client.until_end();
        drop(client.stream.shutdown(Shutdown::Both));
        (answer, upload.join().unwrap().saturating_duration_since(answered))
    });
    assert_eq!(answer.unwrap().map(|answer| (answer.status, answer.from_endpoint)), Some((413, true)));
    assert!(stopped < Duration::from_secs(3), "the upload stopped {stopped:?} after the answer");
}

/// G13.
fn a_client_that_leaves_is_no_work_any_more(gateway: &Gateway, endpoint: &Endpoint) {
    for number in 0..20 {
        let mut client = Client::new(connect(gateway, 30 + number));
        client.stream.write_all(b"GET /flood HTTP/1.1\r\nHost: ok.test\r\n\r\n").unwrap();
        until("the flood is there", || endpoint.flooded() == 1);
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let left = Instant::now();
        until("the endpoint is told", || endpoint.flooded() == 0);
        assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    }
    bystander::ask(gateway.edge, "behind-the-floods").unwrap();
}
