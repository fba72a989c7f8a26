//! What an endpoint gets of a request, and the client of a response.

use crate::harness::{Gateway, Setup, Upstream, Wire, ok};

#[tokio::test]
async fn a_request_and_its_response_go_through() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client
        .write(
            "GET /orders/7?x=1 HTTP/1.1\r\nHost: Shop.test:81\r\nAccept: */*\r\nConnection: x-hop\r\nx-hop: 1\r\n\
             x-forwarded-for: 6.6.6.6\r\ntraceparent: 00-a-b-01\r\nb3: x\r\nx-end: 2\r\nx-end: 1\r\n\r\n",
        )
        .await;
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert!(request.head.starts_with("GET /7?x=1 HTTP/1.1\r\n"), "{}", request.head);
    let expected: [(&str, &[&str]); 15] = [
        ("host", &["Shop.test:81"]),
        ("accept", &["*/*"]),
        ("connection", &[]),
        ("x-hop", &[]),
        ("transfer-encoding", &[]),
        ("content-length", &[]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-host", &["Shop.test:81"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-port", &["81"]),
        ("x-forwarded-prefix", &["/orders"]),
        ("forwarded", &["for=127.0.0.1;host=\"Shop.test:81\";proto=http"]),
        ("via", &["1.1 portolan-test"]),
        ("traceparent", &["00-a-b-01"]),
        ("x-end", &["2", "1"]),
    ];
    for (name, values) in expected {
        assert_eq!(request.all(name), values, "{name}");
    }
    assert_eq!(request.field("x-request-id").unwrap().len(), 32);

    endpoint
        .write(
            "HTTP/1.1 299 Odd\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
             set-cookie: a=1\r\nset-cookie: b=2\r\nvary: accept\r\n\r\nhi",
        )
        .await;
    let response = client.next_message().await.unwrap();
    assert_eq!((response.status(), response.text()), (299, "hi"));
    let expected: [(&str, &[&str]); 6] = [
        ("connection", &[]),
        ("x-hop", &[]),
        ("keep-alive", &[]),
        ("set-cookie", &["a=1", "b=2"]),
        ("vary", &["accept"]),
        ("via", &["1.1 portolan-test"]),
    ];
    for (name, values) in expected {
        assert_eq!(response.all(name), values, "{name}");
    }
    assert!(response.field("date").is_some());
}

/// A byte that is no text does not keep the names beside it from being taken off.
#[tokio::test]
async fn what_a_broken_connection_field_lists_ends_here() {
    use tokio::io::AsyncWriteExt as _;
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let request = b"GET /orders/ HTTP/1.1\r\nhost: a\r\nconnection: \xff, x-hop\r\nx-hop: 1\r\n\r\n";
    client.stream.write_all(request).await.unwrap();
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert_eq!((request.field("x-hop"), request.field("connection")), (None, None));
}

#[tokio::test]
async fn trailers_of_a_request_are_cleaned() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client
        .write(
            "POST /orders/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-forwarded-for, \
             x-request-id\r\n\r\n0\r\nx-sum: 7\r\nx-forwarded-for: 6.6.6.6\r\nx-request-id: theirs\r\n\r\n",
        )
        .await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    let body = endpoint.bytes("0\r\nx-sum: 7\r\n\r\n".len()).await;
    assert_eq!(String::from_utf8(body).unwrap(), "0\r\nx-sum: 7\r\n\r\n");
    endpoint.write(&ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_205_has_no_body() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("GET /orders/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    endpoint.write("HTTP/1.1 205 Reset Content\r\ncontent-length: 4\r\n\r\nbody").await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.text()), (205, ""));
    assert!(endpoint.is_closed().await, "its body is not read, so it cannot be used again");
    assert_eq!(client.ask("GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 404, "in step");
}

/// Framing is said outright for every method, so that no endpoint takes a body for the next request.
#[tokio::test]
async fn bodies_keep_their_framing_whatever_the_method() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    for method in ["GET", "DELETE", "OPTIONS", "POST", "PATCH"] {
        for framing in
            ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n"]
        {
            client.write(&format!("{method} /orders/ HTTP/1.1\r\nhost: shop.test\r\n{framing}")).await;
            let mut endpoint = upstream.accept().await;
            let request = endpoint.next_message().await.unwrap();
            assert_eq!(request.text(), "abc", "{method} {framing}");
            let both =
                request.field("content-length").is_some() && request.field("transfer-encoding").is_some();
            assert!(!both && !request.head.contains("ext"), "{}", request.head);
            endpoint.write(&ok("", "connection: close\r\n")).await;
            assert_eq!(client.next_message().await.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let mut endpoint = None;
    for (method, answer, status, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n", 200, Some("77")),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, None),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 77\r\n\r\n", 304, None),
    ] {
        client.write(&format!("{method} /orders/ HTTP/1.1\r\nhost: shop.test\r\n\r\n")).await;
        if endpoint.is_none() {
            endpoint = Some(upstream.accept().await);
        }
        let endpoint = endpoint.as_mut().unwrap();
        endpoint.next_message().await.unwrap();
        endpoint.write(answer).await;
        let response = client.next_bare().await.unwrap();
        assert_eq!((response.status(), response.field("content-length")), (status, length), "{answer}");
    }
    // The connection is in step: the next answer is read as one.
    client.write("GET /orders/ HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    let mut endpoint = endpoint.unwrap();
    endpoint.next_message().await.unwrap();
    endpoint.write(&ok("end", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "end");
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("GET /orders/ HTTP/1.0\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert!(request.head.starts_with("GET / HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.all("host"), [upstream.address.to_string()], "HTTP/1.1 needs a Host");
    assert_eq!(request.field("via"), Some("1.0 portolan-test"));
    endpoint.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(!head.to_lowercase().contains("chunked"), "{head}");
    assert_eq!(client.bytes(9).await, b"hi");
}

#[tokio::test]
async fn trailers_are_asked_for_and_passed_on() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("GET /orders/ HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert_eq!((request.field("te"), request.field("connection")), (Some("trailers"), Some("te")));
    endpoint
        .write(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\
             Via: x\r\nX-Forwarded-For: 6.6.6.6\r\nforwarded: for=x\r\nconnection: x\r\ncontent-length: 9\r\n\r\n",
        )
        .await;
    assert!(client.head().await.unwrap().contains("trailer: x-sum"));
    let body = client.bytes("2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n".len()).await;
    assert_eq!(String::from_utf8(body).unwrap(), "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
    let line = gateway.logged(|line| line["status"] == 200).await;
    assert_eq!(line.get("reason"), None, "trailers are a good end");

    // Both connections go on.
    client.write("GET /orders/again HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(endpoint.next_message().await.unwrap().head.starts_with("GET /again "));
    endpoint.write(&ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_was_here_before_is_a_loop() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer =
        client.ask("GET /orders/ HTTP/1.1\r\nhost: a\r\nvia: 1.1 front, 1.1 portolan-test\r\n\r\n").await;
    assert_eq!((answer.status(), answer.reason()), (508, "loop_detected"));
    assert!(!upstream.is_called().await);
}

/// The gateway as its own upstream: the loop is cut at the second pass.
#[tokio::test]
async fn a_real_loop_ends() {
    let gateway = Gateway::orders(&[]).await;
    let edge = gateway.edge;
    gateway.set_endpoints(vec![portolan_model::Endpoint::new(edge)]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask("GET /orders/orders/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((answer.status(), answer.reason()), (508, "loop_detected"));
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new().service("orders", &[upstream.address]);
    setup.live.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = setup.start().await;
    let mut client = Wire::connect(gateway.edge).await;
    client
        .write(
            "GET /orders/ HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n\
             x-request-id: theirs\r\n\r\n",
        )
        .await;
    let mut endpoint = upstream.accept().await;
    let request = endpoint.next_message().await.unwrap();
    assert_eq!(request.all("x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.all("x-request-id"), ["theirs"]);
    endpoint.write(&ok("", "")).await;
    client.next_message().await.unwrap();
    let line = gateway.logged(|line| line["request_id"] == "theirs").await;
    assert_eq!(line["client"], "6.6.6.6");
}

#[tokio::test]
async fn an_affinity_cookie_is_set_once_and_leads_back() {
    let (one, two) = (Upstream::new().await.answer_all(), Upstream::new().await.answer_all());
    let mut setup = Setup::new();
    setup.policy.affinity = portolan_model::Affinity::Cookie("lane".into());
    let gateway = setup.service("orders", &[one, two]).start().await;
    let mut client = Wire::connect(gateway.edge).await;
    let first = client.ask("GET /orders/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let cookie = first.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("lane="), "{cookie}");
    for _ in 0..6 {
        let next =
            client.ask(&format!("GET /orders/ HTTP/1.1\r\nhost: a\r\ncookie: x=1; {cookie}\r\n\r\n")).await;
        assert_eq!((next.text(), next.field("set-cookie")), (first.text(), None));
    }
}
