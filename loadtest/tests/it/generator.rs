//! The promises of the generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use portolan_loadtest::load::{Load, Observer, Pace, Report, UpstreamName};
use portolan_loadtest::upstream::Upstream;

use crate::scripted;

fn run(load: Load) -> Report {
    load.start().unwrap().wait().unwrap()
}

#[test]
fn latency_counts_from_the_due_time() {
    // One connection, 100 a second, and the first answer takes half a second: the requests due in that time waited too,
    // and say so, though each took no time once it was sent.
    let address = scripted::serve(|mut wire| {
        wire.request();
        std::thread::sleep(Duration::from_millis(500));
        wire.ok();
        while wire.request() {
            wire.ok();
        }
    });
    let report = run(Load {
        pace: Pace::Open { rate: 100.0 },
        connections: 1,
        count: Some(50),
        ..Load::to(address, "/")
    });
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.latency.max >= Duration::from_millis(500), "{report}");
    assert!(report.latency.p50 >= Duration::from_millis(150), "half of them waited 250 ms or more: {report}");
    assert!(report.service.p50 < Duration::from_millis(100), "{report}");
    assert!(report.queued >= 40, "{report}");
}

#[test]
fn a_generator_that_is_late_says_so() {
    let upstream = Upstream::named("a").start().unwrap();
    let slow = Observer::new(|_| std::thread::sleep(Duration::from_millis(10)));
    let report = run(Load {
        pace: Pace::Open { rate: 1000.0 },
        count: Some(100),
        observer: Some(slow),
        ..Load::to(upstream.address(), "/")
    });
    assert!(report.late_sends > 50, "{report}");
    assert!(report.fell_behind());
    assert!(report.to_string().contains("THE GENERATOR FELL BEHIND"), "{report}");
}

#[test]
fn an_announced_close_is_no_failure() {
    let address = scripted::serve(|mut wire| {
        wire.request();
        wire.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
    let report = run(Load {
        pace: Pace::Open { rate: 500.0 },
        connections: 2,
        count: Some(50),
        ..Load::to(address, "/")
    });
    assert_eq!((report.answered, report.failed), (50, 0), "{report}");
    assert_eq!(report.connections_opened, 48, "two were open at the start: {report}");
}

#[test]
fn an_idle_connection_that_is_closed_is_replaced() {
    // Closed without a word after every second answer, before the next request is due.
    let address = scripted::serve(|mut wire| {
        for _ in 0..2 {
            if wire.request() {
                wire.ok();
            }
        }
    });
    let report = run(Load {
        pace: Pace::Open { rate: 50.0 },
        connections: 1,
        count: Some(20),
        ..Load::to(address, "/")
    });
    assert_eq!((report.answered, report.failed), (20, 0), "{report}");
    assert_eq!(report.connections_replaced, 9, "{report}");
}

#[test]
fn an_idle_connection_that_is_reset_is_replaced() {
    let address = scripted::serve(|mut wire| {
        wire.request();
        wire.ok();
        std::thread::sleep(Duration::from_millis(5));
        wire.reset();
    });
    let report = run(Load {
        pace: Pace::Open { rate: 25.0 },
        connections: 1,
        count: Some(10),
        ..Load::to(address, "/")
    });
    assert_eq!((report.answered, report.failed), (10, 0), "{report}");
    assert_eq!(report.connections_replaced, 9, "{report}");
}

#[test]
fn the_mix_is_drawn_by_its_shares() {
    let upstream = Upstream::named("a").start().unwrap();
    let load = Load {
        pace: Pace::Open { rate: 2000.0 },
        connections: 16,
        new_connections: 0.2,
        count: Some(2000),
        ..Load::to(upstream.address(), "/orders")
    };
    let report = run(load.with_posts(0.1, "hello"));
    assert_eq!((report.answered, report.failed), (2000, 0), "{report}");
    assert_eq!(upstream.switches().received(), 2000);
    assert_eq!(report.upstreams["a"], 2000);
    // The seed is fixed: these are the counts that it draws, near 20 % of 2,000.
    assert!((340..460).contains(&report.connections_opened), "{report}");
}

#[test]
fn what_arrives_is_what_was_asked() {
    let upstream = Upstream::named("echo-1").start().unwrap();
    let mut load = Load {
        host: HeaderValue::from_static("shop.example.com"),
        count: Some(1),
        pace: Pace::Closed,
        connections: 1,
        upstream_name: UpstreamName::Body,
        ..Load::to(upstream.address(), "/a/b?echo").with_posts(1.0, "12345")
    };
    load.headers.insert("x-test", HeaderValue::from_static("yes"));
    let report = run(load);
    let echo = report.upstreams.keys().next().unwrap();
    assert!(echo.starts_with('{') && echo.len() <= 128, "the body is the name, cut: {echo}");
    // The keys come in alphabetical order; the rest is beyond what is kept as a name.
    assert!(echo.contains(r#""body_bytes":5"#), "{echo}");
    assert!(echo.contains("shop.example.com"), "{echo}");
    assert!(echo.contains(r#""x-test","yes""#), "{echo}");
}

#[test]
fn the_closed_loop_sends_the_next_after_the_answer() {
    let upstream = Upstream::named("a").start().unwrap();
    upstream.switches().set_latency(Duration::from_millis(20));
    let report = run(Load {
        pace: Pace::Closed,
        connections: 4,
        duration: Some(Duration::from_millis(500)),
        ..Load::to(upstream.address(), "/")
    });
    assert_eq!(report.failed, 0, "{report}");
    assert!((20..=104).contains(&report.answered), "4 connections, at most one per 20 ms each: {report}");
}

#[test]
fn it_ends_when_told() {
    let upstream = Upstream::named("a").start().unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let (count, (tell, told)) = (answered.clone(), std::sync::mpsc::sync_channel(1));
    let observer = Observer::new(move |seen| {
        if seen.answered && count.fetch_add(1, Ordering::Relaxed) == 20 {
            tell.send(()).unwrap();
        }
    });
    let load = Load {
        pace: Pace::Open { rate: 500.0 },
        observer: Some(observer),
        ..Load::to(upstream.address(), "/")
    };
    let running = load.start().unwrap();
    told.recv().unwrap();
    running.stop();
    let report = running.wait().unwrap();
    assert_eq!(report.failed, 0, "{report}");
    assert_eq!(report.answered, answered.load(Ordering::Relaxed));
    assert!(report.answered > 20);
}

#[test]
fn the_rate_is_kept() {
    let upstream = Upstream::named("a").start().unwrap();
    let report = run(Load {
        pace: Pace::Open { rate: 1000.0 },
        duration: Some(Duration::from_secs(1)),
        ..Load::to(upstream.address(), "/")
    });
    assert_eq!((report.requests, report.failed), (1000, 0), "{report}");
    assert!(report.elapsed >= Duration::from_millis(999), "the last is due after 999 ms: {report}");
}

#[test]
fn what_has_no_meaning_is_refused() {
    let load = || Load::to("127.0.0.1:1".parse().unwrap(), "/");
    for (wrong, word) in [
        (Load { pace: Pace::Open { rate: 0.0 }, ..load() }, "rate of 0"),
        (Load { connections: 0, ..load() }, "no kept connections"),
        (Load { new_connections: 1.5, ..load() }, "1.5"),
        (Load { mix: vec![], ..load() }, "mix"),
    ] {
        assert!(wrong.start().unwrap_err().to_string().contains(word), "{word}");
    }
    assert!(Load::to_url("https://a/").unwrap_err().to_string().contains("http://"));
    assert!(Load::to_url("not a url").is_err());
    assert_eq!(Load::to_url("http://127.0.0.1:81/a?b").unwrap().target, "/a?b");
}
