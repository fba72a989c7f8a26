//! Connections belong to endpoints, and endpoints come and go.

use portolan_model::{Endpoint, Readiness};

use crate::harness::{Gateway, Setup, Upstream, Wire, get, ok};

#[tokio::test]
async fn a_connection_is_used_again() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let mut endpoint = upstream.accept().await;
    for _ in 0..5 {
        endpoint.next_message().await.unwrap();
        endpoint.write(&ok("", "")).await;
        client.next_message().await.unwrap();
        client.write(&get("/orders/")).await;
    }
    gateway.metric_is("portolan_upstream_connections_total", 1.0).await;
    gateway.metric_is("portolan_upstream_connections_reused_total", 5.0).await;
}

#[tokio::test]
async fn connections_to_an_endpoint_that_left_are_closed() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let mut idle = upstream.accept().await;
    idle.next_message().await.unwrap();
    let mut other = Wire::connect(gateway.edge).await;
    other.write(&get("/orders/long")).await;
    let mut busy = upstream.accept().await;
    busy.next_message().await.unwrap();
    idle.write(&ok("", "")).await;
    client.next_message().await.unwrap();

    gateway.set_endpoints(vec![]).await;
    assert!(idle.is_closed().await);
    // What was under way goes on, and is not kept afterwards.
    busy.write(&ok("done", "")).await;
    assert_eq!(other.next_message().await.unwrap().text(), "done");
    assert!(busy.is_closed().await);
    assert_eq!(client.ask(&get("/orders/")).await.status(), 503);
}

/// It stays in its cluster until it has gone, so that it can serve if nothing else is ready.
#[tokio::test]
async fn idle_connections_to_a_draining_endpoint_are_closed() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let mut idle = upstream.accept().await;
    idle.next_message().await.unwrap();
    idle.write(&ok("", "")).await;
    client.next_message().await.unwrap();

    let draining = Endpoint { readiness: Readiness::Draining, ..Endpoint::new(upstream.address) };
    gateway.set_endpoints(vec![draining]).await;
    assert!(idle.is_closed().await);
    client.write(&get("/orders/")).await;
    let mut again = upstream.accept().await;
    again.next_message().await.unwrap();
    again.write(&ok("still here", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "still here");
}

/// Another pod gets the address of one that went: nothing of the former is used for it.
#[tokio::test]
async fn a_pod_that_gets_an_address_of_another_gets_connections_of_its_own() {
    let upstream = Upstream::new().await;
    let pod = |uid: &str| {
        let mut endpoint = Endpoint::new(upstream.address);
        endpoint.key.uid = Some(uid.into());
        endpoint
    };
    let gateway = Gateway::orders(&[]).await;
    gateway.set_endpoints(vec![pod("a")]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&get("/orders/")).await;
    let mut first = upstream.accept().await;
    first.next_message().await.unwrap();
    first.write(&ok("", "")).await;
    client.next_message().await.unwrap();

    gateway.set_endpoints(vec![pod("b")]).await;
    client.write(&get("/orders/")).await;
    let mut second = upstream.accept().await;
    second.next_message().await.unwrap();
    second.write(&ok("new", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "new");
    assert!(first.is_closed().await);
}

#[tokio::test]
async fn a_changed_weight_keeps_the_connection() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let (mut client, mut endpoint) = gateway.asked(&upstream, "/orders/").await;
    endpoint.write(&ok("", "")).await;
    client.next_message().await.unwrap();
    gateway.set_endpoints(vec![Endpoint { weight: 7, ..Endpoint::new(upstream.address) }]).await;
    client.write(&get("/orders/")).await;
    assert!(endpoint.next_message().await.is_some(), "the same connection");
}

#[tokio::test]
async fn round_robin_is_even_over_workers() {
    let mut addresses = Vec::new();
    for _ in 0..4 {
        addresses.push(Upstream::new().await.answer_all());
    }
    let mut setup = Setup::new().service("orders", &addresses);
    setup.config.workers = 2;
    let gateway = setup.start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Wire::connect(gateway.edge).await);
    }
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..400 {
        let answer = clients[round % 8].ask(&get("/orders/")).await;
        *counts.entry(answer.text().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 4);
    assert!(counts.values().all(|count| (98..=102).contains(count)), "{counts:?}");
}

/// Endpoints are replaced one after the other under load; no request fails.
#[tokio::test]
async fn a_rolling_replacement_costs_no_request() {
    let gateway = Gateway::orders(&[]).await;
    let mut addresses = vec![Upstream::new().await.answer_all(), Upstream::new().await.answer_all()];
    gateway.set_endpoints(addresses.iter().copied().map(Endpoint::new).collect()).await;
    let edge = gateway.edge;
    let load = tokio::spawn(async move {
        let mut client = Wire::connect(edge).await;
        for _ in 0..500 {
            let answer = client.ask(&get("/orders/")).await;
            assert_eq!(answer.status(), 200, "{}", answer.head);
        }
    });
    while !load.is_finished() {
        addresses.remove(0);
        addresses.push(Upstream::new().await.answer_all());
        gateway.set_endpoints(addresses.iter().copied().map(Endpoint::new).collect()).await;
    }
    load.await.unwrap();
}
