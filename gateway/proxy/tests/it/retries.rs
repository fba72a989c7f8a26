//! What is tried again, and what never.

use std::time::Duration;

use portolan_model::Endpoint;

use crate::harness::{Gateway, Setup, Upstream, Wire, get, nobody, ok, post};

/// (a): nothing was written, so even a POST goes to the next endpoint, with its body.
#[tokio::test]
async fn a_refused_connection_costs_nothing_but_time() {
    let live = Upstream::new().await;
    let gateway = Gateway::orders(&[nobody().await, nobody().await, live.address]).await;
    for _ in 0..6 {
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&post("/orders/", "body")).await;
        let mut endpoint = live.accept().await;
        assert_eq!(endpoint.next_message().await.unwrap().text(), "body");
        endpoint.write(&ok("", "connection: close\r\n")).await;
        assert_eq!(client.next_message().await.unwrap().status(), 200);
    }
}

/// Endpoints that reset their connections while requests are on their way to be written: such a request goes out with its
/// body or not at all, since a body that has been read is not kept.
#[tokio::test]
async fn a_request_never_goes_out_without_its_body() {
    let (one, two) = (Upstream::new().await, Upstream::new().await);
    let mut setup = Setup::new();
    setup.policy.outlier_detection.consecutive_failures = 0;
    let gateway = setup.service("orders", &[one.address, two.address]).start().await;
    let (fault, mut faults) = tokio::sync::mpsc::channel(1);
    for upstream in [one, two] {
        let fault = fault.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let mut endpoint = upstream.accept().await;
                let fault = fault.clone();
                tokio::spawn(async move {
                    let resets = tokio::time::sleep(Duration::from_micros(2000 + number * 373 % 5000));
                    let mut resets = std::pin::pin!(resets);
                    loop {
                        let head =
                            tokio::select! { () = &mut resets => break, head = endpoint.head() => head };
                        let Some(head) = head else { break };
                        let body = tokio::time::timeout(Duration::from_secs(2), endpoint.bytes(4)).await;
                        if body.as_deref() != Ok(b"body") {
                            // The first says enough.
                            fault.try_send(format!("{head} {body:?}")).ok();
                        }
                        endpoint.write(&ok("", "")).await;
                    }
                    endpoint.reset();
                });
            }
        });
    }
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let edge = gateway.edge;
        clients.spawn(async move {
            let mut client = Wire::connect(edge).await;
            for _ in 0..100 {
                client.write(&post("/orders/", "body")).await;
                if client.next_message().await.is_none() {
                    client = Wire::connect(edge).await;
                }
            }
        });
    }
    clients.join_all().await;
    assert_eq!(faults.try_recv().ok(), None);
}

/// Most pods of a Service go at once: dead ones are passed by until the one that lives.
#[tokio::test]
async fn refused_connections_are_no_retries_while_an_endpoint_is_untried() {
    let live = Upstream::new().await.answer_all();
    let mut addresses = vec![live];
    for _ in 0..5 {
        addresses.push(nobody().await);
    }
    let gateway = Gateway::orders(&addresses).await;
    let mut client = Wire::connect(gateway.edge).await;
    for _ in 0..6 {
        assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
    }
}

#[tokio::test]
async fn when_nobody_can_be_reached_it_is_502_after_all_were_tried_and_two_once_more() {
    let gateway = Gateway::orders(&[nobody().await, nobody().await, nobody().await, nobody().await]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask(&get("/orders/")).await;
    assert_eq!((answer.status(), answer.reason()), (502, "connect_failed"));
    let line = gateway.logged(|line| line["reason"] == "connect_failed").await;
    assert_eq!(line["attempts"], 6);
    gateway.metric_is("portolan_retries_total", 5.0).await;
}

/// (b): an idempotent request without a body, whose connection died before the first byte of a response.
#[tokio::test]
async fn an_idempotent_request_is_tried_again_when_its_connection_dies() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let (one, two) = (Upstream::new().await, Upstream::new().await);
        let gateway = Gateway::orders(&[one.address, two.address]).await;
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&format!("{method} /orders/x HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let (first, second) = tokio::select! {
            wire = one.accept() => (wire, &two),
            wire = two.accept() => (wire, &one),
        };
        let mut first = first;
        let request = first.next_message().await.unwrap();
        drop(first);
        let mut second = second.accept().await;
        assert_eq!(second.next_message().await.unwrap().head, request.head, "{method}");
        second.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(client.next_message().await.unwrap().status(), 200, "{method}");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_never_done_twice() {
    let requests = [
        post("/orders/", "body"),
        "POST /orders/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "PATCH /orders/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "PUT /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx".to_owned(),
    ];
    for request in requests {
        let (one, two) = (Upstream::new().await, Upstream::new().await);
        let gateway = Gateway::orders(&[one.address, two.address]).await;
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&request).await;
        let (mut first, other) = tokio::select! {
            wire = one.accept() => (wire, &two),
            wire = two.accept() => (wire, &one),
        };
        first.next_message().await.unwrap();
        first.reset();
        let answer = client.next_message().await.unwrap();
        assert_eq!((answer.status(), answer.reason()), (502, "upstream_reset"), "{request}");
        assert!(!other.is_called().await, "{request}");
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_final() {
    for (answer, reason) in [
        ("HTTP/1.1 200", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nx: y\r\n", "upstream_reset"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "upstream_protocol"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "upstream_protocol",
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx", "upstream_protocol"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "upstream_protocol",
        ),
    ] {
        let (one, two) = (Upstream::new().await, Upstream::new().await);
        let gateway = Gateway::orders(&[one.address, two.address]).await;
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&get("/orders/")).await;
        let (mut first, other) = tokio::select! {
            wire = one.accept() => (wire, &two),
            wire = two.accept() => (wire, &one),
        };
        first.next_message().await.unwrap();
        first.write(answer).await;
        drop(first);
        let answered = client.next_message().await.unwrap();
        assert_eq!((answered.status(), answered.reason()), (502, reason), "{answer}");
        assert!(!other.is_called().await, "{answer}");
    }
}

/// An endpoint that closes idle connections costs no request: GET is tried again, and POST looks before it leaps.
#[tokio::test]
async fn a_connection_that_went_stale_costs_no_request() {
    for request in [get("/orders/"), post("/orders/", "body")] {
        let upstream = Upstream::new().await;
        let gateway = Gateway::orders(&[upstream.address]).await;
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&request).await;
        let mut endpoint = upstream.accept().await;
        endpoint.next_message().await.unwrap();
        endpoint.write(&ok("", "")).await;
        assert_eq!(client.next_message().await.unwrap().status(), 200);
        drop(endpoint);

        client.write(&request).await;
        let mut endpoint = upstream.accept().await;
        endpoint.next_message().await.unwrap();
        endpoint.write(&ok("again", "")).await;
        assert_eq!(client.next_message().await.unwrap().text(), "again");
    }
}

/// Even with one endpoint a GET whose reused connection died is tried again, on a new connection.
#[tokio::test]
async fn one_endpoint_is_enough_for_another_attempt() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write(&ok("", "")).await;
    client.next_message().await.unwrap();
    client.write(&get("/orders/")).await;
    endpoint.next_message().await.unwrap();
    endpoint.reset();
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    endpoint.write(&ok("again", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "again");
}

#[tokio::test]
async fn retries_can_be_turned_off() {
    let live = Upstream::new().await.answer_all();
    let mut setup = Setup::new();
    setup.policy.retry.max_retries = 0;
    setup.policy.outlier_detection.consecutive_failures = 0;
    let gateway = setup.service("orders", &[nobody().await, live]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.ask(&get("/orders/")).await.status());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
}

/// Every endpoint but one is dead; no request fails, and after a while the dead ones are left out.
#[tokio::test]
async fn dead_endpoints_are_ejected() {
    let live = Upstream::new().await.answer_all();
    let gateway = Gateway::orders(&[]).await;
    gateway.set_endpoints(vec![Endpoint::new(nobody().await), Endpoint::new(live)]).await;
    let mut client = Wire::connect(gateway.edge).await;
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
    }
    gateway.metric_is("portolan_endpoints{state=\"ejected\"}", 1.0).await;
    gateway.metric_is("portolan_ejections_total{cluster=\"default/orders:80\"}", 1.0).await;
    let retries = gateway.metric("portolan_retries_total");
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
    }
    assert!(gateway.metric("portolan_retries_total") - retries < 2.0);
}

/// A hung endpoint costs the request that finds it out its time-out, and no further one: it is tried with copies.
#[tokio::test]
async fn nobody_waits_for_an_ejected_endpoint_that_still_hangs() {
    let (hung, live) = (Upstream::new().await, Upstream::new().await.answer_all());
    let mut setup = Setup::new();
    setup.policy.timeouts.response_header = Duration::from_millis(600);
    setup.policy.outlier_detection.base_ejection = Duration::from_millis(100);
    let gateway = setup.service("orders", &[hung.address, live]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    while client.ask(&get("/orders/")).await.status() == 200 {}
    let mut found_out = hung.accept().await;
    found_out.next_message().await.unwrap();
    let mut copies = Vec::new();
    for _trial in 0..3 {
        copies.push(tried(&hung, gateway.edge).await);
    }
    // It works again, and that is found out without a client's help, too.
    let copy = &mut copies[2];
    assert!(copy.next_message().await.unwrap().head.starts_with("GET / HTTP/1.1"));
    copy.write(&ok("", "")).await;
    gateway.metric_is("portolan_endpoints{state=\"ejected\"}", 0.0).await;
}

/// Asks until the endpoint is tried; every answer is good.
async fn tried(hung: &Upstream, edge: std::net::SocketAddr) -> Wire {
    let mut client = Wire::connect(edge).await;
    let request = get("/orders/");
    loop {
        tokio::select! {
            biased;
            copy = hung.accept() => return copy,
            answer = client.ask(&request) => assert_eq!(answer.status(), 200),
        }
    }
}

/// Interim responses are read away, but not for ever.
#[tokio::test]
async fn an_endpoint_that_sends_interim_responses_without_end_is_given_up() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/few").await;
    endpoint.write(&"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(20)).await;
    endpoint.write(&ok("after a few", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "after a few");

    client.write(&get("/orders/endless")).await;
    endpoint.next_message().await.unwrap();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(100);
    while tokio::io::AsyncWriteExt::write_all(&mut endpoint.stream, hints.as_bytes()).await.is_ok() {}
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (502, "upstream_protocol"));
}
