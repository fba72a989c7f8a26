//! Client connections: how many, how long.

use crate::harness::{Gateway, Setup, Upstream, Wire, get, ok};

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let mut setup = Setup::new().service("orders", &[Upstream::new().await.answer_all()]);
    setup.config.max_connections = 2;
    let gateway = setup.start().await;
    let mut one = Wire::connect(gateway.edge).await;
    let mut two = Wire::connect(gateway.edge).await;
    assert_eq!(one.ask(&get("/orders/")).await.status(), 200);
    assert_eq!(two.ask(&get("/orders/")).await.status(), 200);
    let mut three = Wire::connect(gateway.edge).await;
    assert!(three.is_closed().await);
    gateway.metric_is("portolan_connections_refused_total{listener=\"edge\"}", 1.0).await;
    drop(one);
    gateway.metric_is("portolan_connections{listener=\"edge\"}", 1.0).await;
    let mut four = Wire::connect(gateway.edge).await;
    assert_eq!(four.ask(&get("/orders/")).await.status(), 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&format!("{}{}{}", get("/orders/1"), get("/nothing"), get("/orders/3"))).await;
    let mut endpoint = upstream.accept().await;
    for path in ["/1", "/3"] {
        let request = endpoint.next_message().await.unwrap();
        assert!(request.head.starts_with(&format!("GET {path} ")), "{}", request.head);
        endpoint.write(&ok(path, "")).await;
    }
    assert_eq!(client.next_message().await.unwrap().text(), "/1");
    assert_eq!(client.next_message().await.unwrap().status(), 404);
    assert_eq!(client.next_message().await.unwrap().text(), "/3");
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_closed() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer =
        client.ask("GET /orders/ HTTP/1.1\r\nhost: a\r\nconnection: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answer.status(), 200);
    assert!(client.is_closed().await);
}
