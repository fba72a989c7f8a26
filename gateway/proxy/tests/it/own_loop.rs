//! The loop that serves ordinary HTTP/1.1, and its seam to hyper.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::harness::{Gateway, Setup, Upstream, Wire, get, ok, post, soon};

/// A request that hyper serves: this loop sends no 100 (Continue).
fn expecting(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
}

#[tokio::test]
async fn a_connection_goes_to_hyper_with_the_first_request_that_is_not_ordinary_and_stays_there() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    // All at once, so that the seam is in the middle of what was read.
    client
        .write(
            &[&get("/orders/1"), &expecting("/orders/2"), "hi", &post("/orders/3", "you"), &get("/orders/4")]
                .concat(),
        )
        .await;
    let mut endpoint = upstream.accept().await;
    for (number, body) in [(1, ""), (2, "hi"), (3, "you"), (4, "")] {
        let request = endpoint.next_message().await.unwrap();
        assert!(request.head.contains(&format!(" /{number} ")), "{}", request.head);
        assert_eq!(request.text(), body);
        endpoint.write(&ok(&number.to_string(), "")).await;
        let mut answer = client.next_bare().await.unwrap();
        if answer.status() == 100 {
            answer = client.next_bare().await.unwrap();
        }
        assert_eq!((answer.status(), answer.field("content-length")), (200, Some("1")));
        assert_eq!(client.bytes(1).await, number.to_string().as_bytes());
    }
}

#[tokio::test]
async fn http_1_0_is_served_behind_ordinary_requests() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let mut client = Wire::connect(gateway.edge).await;
    assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
    let answer = client.ask("GET /orders/ HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert!(answer.head.starts_with("HTTP/1.0 200 "), "{}", answer.head);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn after_a_request_to_close_nothing_is_served() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let last = "GET /orders/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write(&format!("{last}{}", get("/orders/"))).await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert!(client.is_closed().await);
    gateway.metric_is("portolan_connections{listener=\"edge\"}", 0.0).await;
}

/// Documented behaviour, and the same behind hyper: a client that ends its direction while its request is in flight has
/// most likely gone.
#[tokio::test]
async fn a_client_that_half_closes_is_taken_for_gone() {
    for request in [get("/orders/"), expecting("/orders/") + "hi"] {
        let upstream = Upstream::new().await;
        let gateway = Gateway::orders(&[upstream.address]).await;
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&request).await;
        let mut endpoint = upstream.accept().await;
        endpoint.next_message().await.unwrap();
        client.stream.shutdown().await.unwrap();
        assert!(endpoint.is_closed().await);
        gateway.logged(|line| line["reason"] == "client_closed").await;
    }
}

#[tokio::test]
async fn chunks_are_read_strictly_and_the_next_head_is_found_behind_them() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let chunked = |extra: &str| {
        format!("POST /orders/ HTTP/1.1\r\nhost: a\r\n{extra}transfer-encoding: chunked\r\n\r\n")
    };
    let body = "3;a=b\r\none\r\n2\r\n, \r\n3\r\ntwo\r\n0\r\nx-sum: 1\r\n\r\n";
    // The second of each two is read by hyper behind the screen.
    for extra in ["", "expect: 100-continue\r\n"] {
        let mut client = Wire::connect(gateway.edge).await;
        let hostile = "GET /orders/ HTTP/1.1\nhost: a\r\n\r\n";
        client.write(&[&chunked(extra), body, &get("/orders/next"), hostile].concat()).await;
        let mut endpoint = upstream.accept().await;
        for expected in ["one, two", ""] {
            assert_eq!(endpoint.next_message().await.unwrap().text(), expected);
            endpoint.write(&ok("", "")).await;
            let mut answer = client.next_message().await.unwrap();
            if answer.status() == 100 {
                answer = client.next_message().await.unwrap();
            }
            assert_eq!(answer.status(), 200);
        }
        let refused = client.next_message().await.unwrap();
        assert_eq!((refused.status(), refused.reason()), (400, "bad_request"), "{extra}");
        assert!(client.is_closed().await);
        drop(endpoint);

        for malformed in [
            "3 \r\none\r\n0\r\n\r\n",
            "00000000000000003\r\none\r\n0\r\n\r\n",
            "3;\0\r\none\r\n0\r\n\r\n",
            "3\none\r\n0\r\n\r\n",
            "3\r\nfour\r\n0\r\n\r\n",
            "3\r\none\r\n0\r\nx : y\r\n\r\n",
        ] {
            let mut client = Wire::connect(gateway.edge).await;
            client.write(&format!("{}1\r\nx\r\n", chunked(extra))).await;
            let mut endpoint = upstream.accept().await;
            endpoint.head().await.unwrap();
            client.write(malformed).await;
            let mut answer = client.next_message().await.unwrap();
            if answer.status() == 100 {
                answer = client.next_message().await.unwrap();
            }
            assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")), "{malformed:?}");
            assert!(client.is_closed().await);
            let seen = String::from_utf8(endpoint.bytes(1 << 16).await).unwrap();
            assert!(!seen.contains("0\r\n\r\n"), "the endpoint must not take it for whole: {seen:?}");
        }
    }
}

/// What follows cannot be told from the rest of the body, so nothing of it is taken for a request.
#[tokio::test]
async fn an_answer_before_the_request_is_whole_closes_the_connection() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    endpoint.write(&ok("early", "")).await;
    let answer = client.next_message().await.unwrap();
    assert_eq!(answer.text(), "early");
    assert!(client.is_closed().await);
    client.write(&get("/orders/")).await;
    assert!(!upstream.is_called().await);
}

#[tokio::test]
async fn every_size_of_body_arrives_whole() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let mut endpoint = upstream.accept().await;
    let mut first = true;
    for size in [0, 1, 100, 8191, 8192, 8193, 65_536, 300_000] {
        for chunked in [false, true] {
            if !std::mem::take(&mut first) {
                client.write(&post("/orders/", &"u".repeat(size))).await;
            }
            assert!(endpoint.next_message().await.unwrap().body.iter().all(|byte| *byte == b'u'));
            let body = "d".repeat(size);
            if chunked {
                let chunk = if size == 0 { String::new() } else { format!("{size:x}\r\n{body}\r\n") };
                endpoint
                    .write(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"))
                    .await;
            } else {
                endpoint.write(&ok(&body, "")).await;
            }
            assert!(client.next_message().await.unwrap().text() == body, "{size} {chunked}");
        }
    }
}

#[tokio::test]
async fn a_response_says_when_it_was_made_unless_the_endpoint_did() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write(&ok("", "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n")).await;
    assert_eq!(client.next_message().await.unwrap().all("date"), ["Thu, 01 Jan 1970 00:00:00 GMT"]);
    let answer = client.ask(&get("/nothing")).await;
    assert!(answer.field("date").unwrap().ends_with(" GMT"), "{}", answer.head);
}

/// A limit that was changed counts from the next head on, also on a connection that is open.
#[tokio::test]
async fn limits_of_heads_follow_the_settings() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let fields = |count: usize| {
        let fields: String = (0..count).map(|number| format!("x-{number}: y\r\n")).collect();
        format!("GET /orders/ HTTP/1.1\r\nhost: a\r\n{fields}\r\n")
    };
    assert_eq!(client.ask(&fields(20)).await.status(), 200);
    gateway.live.send_modify(|live| std::sync::Arc::make_mut(live).max_header_fields = 10);
    let answer = soon(async {
        loop {
            let mut client = Wire::connect(gateway.edge).await;
            let answer = client.ask(&fields(20)).await;
            if answer.status() != 200 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer.status(), 431);
    assert_eq!(client.ask(&fields(20)).await.status(), 431);
}

/// An answer to a head that was refused comes behind the answers that are under way, and does not break into them.
#[tokio::test]
async fn a_refusal_waits_for_a_reader_that_is_slow() {
    let upstream = Upstream::new().await;
    let gateway = Setup::new().service("orders", &[upstream.address]).start().await;
    for first in [get("/orders/"), expecting("/orders/") + "hi"] {
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&format!("{first}GET / HTTP/1.1\nhost: a\r\n\r\n")).await;
        let mut endpoint = upstream.accept().await;
        endpoint.next_message().await.unwrap();
        let body = "d".repeat(40 << 20);
        let answer = ok(&body, "");
        let mut writing = tokio::spawn(async move {
            endpoint.write(&answer).await;
            endpoint
        });
        // The kernels take some of it; the rest waits for the reader.
        assert!(timeout(Duration::from_millis(300), &mut writing).await.is_err());
        let mut answer = client.next_message().await.unwrap();
        if answer.status() == 100 {
            answer = client.next_message().await.unwrap();
        }
        assert!(answer.text() == body);
        assert_eq!(client.next_message().await.unwrap().status(), 400);
        drop(soon(writing).await.unwrap());
    }
}
