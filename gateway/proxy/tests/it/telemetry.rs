//! What the proxy tells of a request.

use crate::harness::{Gateway, Setup, Upstream, Wire, get};

#[tokio::test]
async fn a_request_has_one_line_without_secrets() {
    let address = Upstream::new().await.answer_all();
    let gateway = Gateway::orders(&[address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = client
        .ask(
            "GET /orders/7?token=hunter2 HTTP/1.1\r\nhost: shop.test\r\nuser-agent: test/1\r\n\
             authorization: Bearer hunter2\r\ncookie: session=hunter2\r\n\r\n",
        )
        .await;
    let line = gateway.logged(|line| line["path"] == "/orders/7").await;
    assert!(!line.to_string().contains("hunter2"), "{line}");
    let expected = serde_json::json!({
        "client": "127.0.0.1", "method": "GET", "host": "shop.test", "path": "/orders/7", "protocol": "HTTP/1.1",
        "status": 200, "route": "Service/default/orders/path", "cluster": "default/orders:80",
        "endpoint": address.to_string(), "attempts": 1, "bytes_in": 0, "bytes_out": answer.body.len(),
        "generation": 1, "user_agent": "test/1",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name}");
    }
    for name in ["time", "request_id", "duration_ms", "upstream_ms"] {
        assert!(!line[name].is_null(), "{name}");
    }
    assert!(line.get("reason").is_none());
}

#[tokio::test]
async fn the_log_can_be_told_at_run_time_to_keep_to_errors() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    gateway.live.send_modify(|live| {
        std::sync::Arc::make_mut(live).access_log = portolan_proxy::AccessLog::Errors;
    });
    let mut client = Wire::connect(gateway.edge).await;
    client.ask(&get("/orders/good")).await;
    let answer = client.ask(&get("/nothing")).await;
    let first = gateway.logged(|line| line["path"] != "").await;
    assert_eq!((&first["path"], &first["reason"]), (&"/nothing".into(), &"no_route".into()));
    assert_eq!(first["request_id"].as_str(), answer.field("x-request-id"), "{first}");
    assert_eq!(first["bytes_out"], answer.body.len(), "{first}");
    assert_ne!(first["generation"], 0, "{first}");
}

#[tokio::test]
async fn metrics_are_summed_over_workers() {
    let mut setup = Setup::new().service("orders", &[Upstream::new().await.answer_all()]);
    setup.config.workers = 3;
    let gateway = setup.start().await;
    for _ in 0..30 {
        let mut client = Wire::connect(gateway.edge).await;
        assert_eq!(client.ask(&get("/orders/")).await.status(), 200);
        assert_eq!(client.ask(&get("/nothing")).await.status(), 404);
    }
    let of = |route: &str, cluster: &str, class: &str| {
        format!("portolan_requests_total{{route=\"{route}\",cluster=\"{cluster}\",status_class=\"{class}\"}}")
    };
    gateway.metric_is(&of("Service/default/orders/path", "default/orders:80", "2xx"), 30.0).await;
    gateway.metric_is(&of("", "", "4xx"), 30.0).await;
    gateway.metric_is("portolan_failures_total{reason=\"no_route\"}", 30.0).await;
    gateway.metric_is("portolan_request_duration_seconds_count{cluster=\"default/orders:80\"}", 30.0).await;
    gateway.metric_is("portolan_connections_total{listener=\"edge\"}", 30.0).await;
    gateway.metric_is("portolan_connections{listener=\"edge\"}", 0.0).await;
    gateway.metric_is("portolan_table_generation", 1.0).await;
    gateway.metric_is("portolan_endpoints{state=\"ready\"}", 1.0).await;
}
