//! Which forms of a request are taken where, and what is answered to the others.

use portolan_model::Role;
use portolan_proxy::table::Question;

use crate::harness::{Gateway, Setup, Upstream, Wire, get};

#[tokio::test]
async fn the_cluster_listener_takes_names_in_both_forms() {
    let address = Upstream::new().await.answer_all();
    let gateway = Gateway::orders(&[address]).await;
    let mut client = Wire::connect(gateway.cluster).await;
    for request in [
        "GET / HTTP/1.1\r\nhost: orders\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: ORDERS.:80\r\n\r\n",
        "GET http://orders/ HTTP/1.1\r\nhost: whatever\r\n\r\n",
        "GET http://orders:80 HTTP/1.1\r\nhost: whatever\r\n\r\n",
        "GET /orders/ HTTP/1.1\r\nhost: whatever\r\n\r\n",
    ] {
        let answer = client.ask(request).await;
        assert_eq!((answer.status(), answer.text()), (200, address.port().to_string().as_str()), "{request}");
    }
}

#[tokio::test]
async fn every_refusal_has_its_status_and_reason_and_dials_nothing() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let long = "x".repeat(9000);
    let (edge, cluster) = (gateway.edge, gateway.cluster);
    let host = |line: &str| format!("{line} HTTP/1.1\r\nhost: orders\r\n\r\n");
    let table = [
        (edge, get("/nothing"), 404, "no_route"),
        (edge, host("GET /"), 404, "no_route"),
        (edge, host("GET http://orders/"), 404, "target_form"),
        (edge, host(&format!("GET http://{}/", upstream.address)), 404, "target_form"),
        (cluster, host(&format!("GET http://{}/", upstream.address)), 404, "no_route"),
        // A path of ours, but meant for another host: this is no open proxy, and no gateway for it either.
        (cluster, host("GET http://elsewhere/orders/"), 404, "no_route"),
        (cluster, host("GET http://orders:81/"), 404, "unknown_port"),
        (cluster, "GET / HTTP/1.1\r\nhost: orders:81\r\n\r\n".into(), 404, "unknown_port"),
        (cluster, host("GET https://orders/"), 400, "bad_request"),
        (cluster, host("CONNECT orders:80"), 405, "method_not_allowed"),
        (edge, host("CONNECT orders:80"), 405, "method_not_allowed"),
        (edge, "GET /orders HTTP/1.1\r\n\r\n".into(), 400, "bad_request"),
        (edge, "GET /orders HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".into(), 400, "bad_request"),
        (edge, "GET /orders HTTP/1.1\r\nhost: a b\r\n\r\n".into(), 400, "bad_request"),
        (edge, get("/orders/../admin"), 400, "bad_request"),
        (edge, get("/orders/%2e%2e/admin"), 400, "bad_request"),
        (edge, get("/orders%2f..%2fadmin"), 400, "bad_request"),
        (edge, get(&format!("/{long}")), 414, "target_too_long"),
        (
            edge,
            format!("GET /orders HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(65_536)),
            431,
            "headers_too_large",
        ),
        (edge, host("GET orders"), 400, "bad_request"),
        (edge, host("GET *"), 400, "bad_request"),
        (edge, "GET /orders HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n".into(), 417, "expectation_failed"),
        (
            edge,
            "GET /orders HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nexpect: tea\r\n\r\n".into(),
            417,
            "expectation_failed",
        ),
        (
            edge,
            "POST /orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(),
            501,
            "unknown_transfer_coding",
        ),
    ];
    for (address, request, status, reason) in table {
        let mut client = Wire::connect(address).await;
        let answer = client.ask(&request).await;
        assert_eq!((answer.status(), answer.reason()), (status, reason), "{request}");
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&told["status"], &told["reason"]), (&status.into(), &reason.into()), "{request}");
        assert_eq!(told["request_id"], answer.field("x-request-id").unwrap());
        if status != 404 {
            assert_eq!(answer.field("connection"), Some("close"), "{request}");
            assert!(client.is_closed().await, "{request}");
        }
    }
    assert!(!upstream.is_called().await);
}

/// What the parser refuses by itself still ends the connection, with a status.
#[tokio::test]
async fn heads_that_are_no_http_are_refused() {
    let gateway = Gateway::orders(&[]).await;
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "x".repeat(100_000));
    for (request, status) in [
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nbad header: 1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{large}\r\n"), 431),
    ] {
        let mut client = Wire::connect(gateway.edge).await;
        client.write(&request).await;
        let answer = client.next_bare().await.unwrap();
        assert_eq!(answer.status(), status, "{}", &request[..60.min(request.len())]);
    }
    gateway.metric_is("portolan_failures_total{reason=\"headers_too_large\"}", 2.0).await;
    gateway.metric_is("portolan_failures_total{reason=\"bad_request\"}", 3.0).await;
    for (reason, status) in [("bad_request", 400), ("headers_too_large", 431)] {
        let line = gateway.logged(|line| line["reason"] == reason).await;
        assert_eq!((&line["status"], &line["method"]), (&status.into(), &"-".into()));
    }
}

/// What the listener refuses before it looks for a route, `explain` refuses as well.
#[tokio::test]
async fn explanations_agree_with_the_listener() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    for (role, method, url, expected) in [
        (Role::Edge, "GET", "/orders/", "rule "),
        (Role::Edge, "GET", "/orders/../admin", "400: the path has a dot segment"),
        (Role::Edge, "GET", "/orders/%2e%2e/admin", "400: the path has a dot segment"),
        (Role::Edge, "GET", "/orders/%", "400: the path has a percent sign"),
        (Role::Edge, "CONNECT", "/orders/", "405: "),
        (Role::Cluster, "GET", "http://orders/", "rule "),
        (Role::Cluster, "GET", "http://elsewhere/orders/", "404: "),
    ] {
        let question = Question::parse(role, method, url).unwrap();
        let summary = gateway.proxy().explain(&question).summary;
        assert!(summary.starts_with(expected), "{method} {url}: {summary}");
    }
}

/// With both, nobody can tell where the body ends, and nothing after it is believed.
#[tokio::test]
async fn a_length_beside_chunks_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client
        .write(
            "POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
             0\r\n\r\nGET /orders/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
    let answer = client.next_message().await.unwrap();
    assert_eq!(
        (answer.status(), answer.reason(), answer.field("connection")),
        (400, "bad_request", Some("close"))
    );
    assert!(client.next_message().await.is_none(), "the connection ends with the answer");
    assert!(!upstream.is_called().await);
}

/// The screen of raw bytes looks at every head: also behind another, and behind a body.
#[tokio::test]
async fn a_head_that_others_read_differently_is_refused_after_the_requests_before_it() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    for hidden in ["x: y\nevil: z\r\n", "connection: host\r\n", "transfer_encoding: chunked\r\n"] {
        let mut client = Wire::connect(gateway.edge).await;
        client
            .write(&format!(
                "POST /orders/a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
                 GET /orders/b HTTP/1.1\r\nhost: a\r\n{hidden}\r\n"
            ))
            .await;
        let mut endpoint = upstream.accept().await;
        assert_eq!(endpoint.next_message().await.unwrap().text(), "hello");
        endpoint.write(&crate::harness::ok("first", "connection: close\r\n")).await;
        assert_eq!(client.next_message().await.unwrap().text(), "first");
        let answer = client.next_message().await.unwrap();
        assert_eq!((answer.status(), answer.reason()), (400, "bad_request"), "{hidden}");
        assert!(client.next_message().await.is_none(), "the connection ends with the answer");
    }
}

#[tokio::test]
async fn the_gateway_answers_for_itself_where_it_is_asked() {
    let gateway = Gateway::orders(&[]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("allow").is_some()), (200, true));
    let answer =
        client.ask("TRACE /orders HTTP/1.1\r\nhost: a\r\nx: secret\r\nmax-forwards: 0\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text()), (200, "TRACE /orders HTTP/1.1\r\n\r\n"));
    let answer = client.ask("TRACE /orders HTTP/1.1\r\nhost: a\r\ncookie: secret\r\n\r\n").await;
    assert_eq!((answer.status(), answer.reason()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn a_service_without_endpoints_is_503() {
    let gateway = Gateway::orders(&[]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask(&get("/orders")).await;
    assert_eq!((answer.status(), answer.reason()), (503, "no_endpoints"));
    assert_eq!(client.ask(&get("/orders")).await.status(), 503, "the connection stays");
    let answer = client.ask("GET /orders HTTP/1.1\r\nhost: a\r\naccept: text/html\r\n\r\n").await;
    assert_eq!(answer.text(), "the service has no endpoint that could answer (no_endpoints)\n");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_or_while_it_comes() {
    let upstream = Upstream::new().await;
    let mut setup = Setup::new().service("orders", &[upstream.address]);
    setup.live.max_body_bytes = Some(10);
    let gateway = setup.start().await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client.ask("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n").await;
    assert_eq!((answer.status(), answer.reason()), (413, "body_too_large"));
    assert!(!upstream.is_called().await);

    let mut client = Wire::connect(gateway.edge).await;
    client
        .write("POST /orders/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        .await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    client.write("6\r\nabcdef\r\n").await;
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (413, "body_too_large"));
    while !endpoint.bytes(1).await.is_empty() {}
}
