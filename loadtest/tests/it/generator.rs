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
fn a_request_that_is_lost_in_the_generator_fails_the_run() {
    // Whoever looks at each request may panic; then the counts lack it, and must not be believed.
    let upstream = Upstream::named("a").start().unwrap();
    for (pace, new_connections) in
        [(Pace::Open { rate: 1000.0 }, 0.0), (Pace::Open { rate: 1000.0 }, 1.0), (Pace::Closed, 0.0)]
    {
        let seen = AtomicU64::new(0);
        let observer = Observer::new(move |_| {
            assert!(seen.fetch_add(1, Ordering::Relaxed) != 3, "the fourth one is too much");
        });
        let load = Load {
            pace,
            new_connections,
            count: Some(50),
            observer: Some(observer),
            ..Load::to(upstream.address(), "/")
        };
        let lost = load.start().unwrap().wait().unwrap_err();
        assert!(format!("{lost:#}").contains("a task of the generator"), "{lost:#}");
    }
}

#[test]
fn a_request_that_ran_out_of_time_for_want_of_a_connection_says_so() {
    // The only connection hangs: for the requests behind the first one next to nothing of their time is left.
    let address = scripted::serve(|mut wire| {
        wire.request();
        std::thread::sleep(Duration::from_secs(5));
    });
    let report = run(Load {
        pace: Pace::Open { rate: 1000.0 },
        connections: 1,
        count: Some(10),
        timeout: Duration::from_secs(1),
        ..Load::to(address, "/")
    });
    assert_eq!(report.failed, 10, "{report}");
    assert!(report.queued >= 9, "those that failed waited too: {report}");
    let waited = report.failures.iter().filter(|it| it.reason.ends_with("it waited for a free connection"));
    assert!(waited.count() >= 9, "{report}");
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
    assert_eq!(report.new_connections.requests, report.connections_opened, "{report}");
    assert_eq!(report.methods["POST"].requests, report.not_idempotent.requests);
    assert!((150..250).contains(&report.not_idempotent.requests), "near 10 %: {report}");
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

/// Closes each connection on its second request, unanswered: what happens when a server ends while a request is on its
/// way on a kept connection.
fn closes_at_the_second_request() -> std::net::SocketAddr {
    scripted::serve(|mut wire| {
        wire.request();
        wire.ok();
        wire.request();
    })
}

#[test]
fn a_stale_connection_fails_the_request_or_is_tried_anew() {
    let load = |retry| Load {
        pace: Pace::Open { rate: 100.0 },
        connections: 1,
        count: Some(20),
        retry,
        ..Load::to(closes_at_the_second_request(), "/")
    };
    let strict = run(load(false));
    assert_eq!(
        (strict.answered, strict.failed, strict.retriable, strict.retried),
        (10, 10, 10, 0),
        "{strict}"
    );
    assert_eq!((strict.kept_connections.requests, strict.kept_connections.retriable), (20, 10));
    assert!(strict.failures.iter().all(|failure| failure.retriable && !failure.new_connection), "{strict}");

    let lenient = run(load(true));
    assert_eq!((lenient.answered, lenient.failed, lenient.retriable), (20, 0, 0), "{lenient}");
    // The first on the first connection; from then on each is the second on its connection, and the first on the next.
    assert_eq!((lenient.retried, lenient.idempotent.retried), (19, 19), "{lenient}");
}

#[test]
fn a_post_is_never_sent_twice() {
    let load = Load {
        pace: Pace::Open { rate: 100.0 },
        connections: 1,
        count: Some(20),
        retry: true,
        ..Load::to(closes_at_the_second_request(), "/").with_posts(1.0, "")
    };
    let report = run(load);
    assert_eq!((report.answered, report.failed), (10, 10), "{report}");
    assert_eq!((report.retriable, report.retried), (0, 0), "{report}");
    assert_eq!((report.not_idempotent.failed, report.idempotent.requests), (10, 0), "{report}");
}

#[test]
fn a_second_try_that_fails_says_so() {
    // One answer for all: the second request's second try is answered by nobody.
    let answers = Arc::new(AtomicU64::new(1));
    let address = scripted::serve(move |mut wire| {
        while wire.request() {
            if answers.load(Ordering::SeqCst) == 0 {
                return;
            }
            answers.store(0, Ordering::SeqCst);
            wire.ok();
        }
    });
    let report = run(Load {
        pace: Pace::Open { rate: 50.0 },
        connections: 1,
        count: Some(2),
        retry: true,
        ..Load::to(address, "/")
    });
    assert_eq!((report.answered, report.failed, report.retried), (1, 1, 1), "{report}");
    let failure = &report.failures[0];
    assert!(failure.retried && !failure.retriable && failure.new_connection, "{failure}");
    assert!(failure.to_string().contains("at the second try"), "{failure}");
}

#[test]
fn slow_requests_are_counted_whatever_becomes_of_them() {
    let upstream = Upstream::named("a").start().unwrap();
    upstream.switches().set_latency(Duration::from_millis(100));
    let load = |slow_after, timeout| Load {
        pace: Pace::Open { rate: 100.0 },
        count: Some(10),
        slow_after: Duration::from_millis(slow_after),
        timeout: Duration::from_millis(timeout),
        connections: 10,
        ..Load::to(upstream.address(), "/")
    };
    let report = run(load(50, 5000));
    assert_eq!((report.slow, report.failed), (10, 0), "{report}");
    let span = report.slow_spans[0];
    assert_eq!((span.requests, span.first.as_millis(), span.last.as_millis()), (10, 0, 90), "{report}");
    assert!(report.to_string().contains("waited over 50ms: 10"), "{report}");
    let report = run(load(20, 50));
    assert_eq!((report.slow, report.failed), (10, 10), "{report}");
    assert_eq!(run(load(5000, 5000)).slow, 0);
}

#[test]
fn a_proxy_is_asked_for_the_whole_url() {
    let proxy = Upstream::named("proxy").start().unwrap();
    let url = format!("http://{}", proxy.address());
    let load = Load::through_proxy(&url, "http://hello.shop.svc:81/a/b?echo").unwrap();
    assert_eq!(load.address, proxy.address(), "hello.shop.svc is not looked up");
    let report = run(Load { count: Some(1), pace: Pace::Closed, connections: 1, ..load.clone() });
    assert_eq!(report.answered, 1, "{report}");
    assert!(
        report.target.starts_with("http://hello.shop.svc:81/a/b?echo through 127.0.0.1:"),
        "{}",
        report.target
    );

    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let kept = seen.clone();
    let address = scripted::serve(move |mut wire| {
        *kept.lock().unwrap() = wire.request_text();
        wire.ok();
    });
    run(Load { address, count: Some(1), pace: Pace::Closed, connections: 1, ..load });
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with("GET http://hello.shop.svc:81/a/b?echo HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: hello.shop.svc:81\r\n"), "{seen}");

    let error = Load::through_proxy(&url, "https://a/").unwrap_err().to_string();
    assert!(error.contains("only http://"), "{error}");
}

#[test]
fn phases_are_counted_apart_while_it_runs() {
    let upstream = Upstream::named("a").start().unwrap();
    // Holds the generator at its 10th and its 20th answer while the test looks.
    let (gate, count) = (Arc::new(std::sync::Barrier::new(2)), AtomicU64::new(0));
    let passing = gate.clone();
    let observer = Observer::new(move |_| {
        if [10, 20].contains(&count.fetch_add(1, Ordering::SeqCst)) {
            passing.wait();
            passing.wait();
        }
    });
    let load = Load {
        pace: Pace::Closed,
        connections: 1,
        count: Some(30),
        observer: Some(observer),
        ..Load::to(upstream.address(), "/")
    };
    let running = load.start().unwrap();
    gate.wait();
    assert_eq!(running.so_far().requests, 10);
    let first = running.phase();
    assert_eq!((first.upstreams["a"], first.failed), (10, 0), "{first}");
    upstream.kill();
    gate.wait();
    gate.wait();
    let second = running.phase();
    gate.wait();
    // The 11th had its answer before the upstream ended.
    assert_eq!((second.answered, second.failed, second.spans.len()), (1, 9, 1), "{second}");
    assert_eq!(second.start, first.start, "times have the same zero in every phase");
    let whole = running.wait().unwrap();
    assert_eq!((whole.answered, whole.failed), (11, 19), "{whole}");
}
