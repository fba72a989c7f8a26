//! Listeners follow the snapshot.

use std::sync::Arc;

use portolan_model::{ListenerId, Role};
use portolan_proxy::{ListenerState, ListenerStatus};

use crate::harness::{Gateway, Setup, Upstream, Wire, get, listener, loopback, soon};

async fn status(gateway: &Gateway, id: &str, holds: impl Fn(&ListenerStatus) -> bool) -> ListenerStatus {
    let mut listeners = gateway.proxy().listeners();
    let found = |all: &Arc<Vec<ListenerStatus>>| {
        all.iter().find(|status| status.listener.id.as_str() == id && holds(status)).cloned()
    };
    let all = soon(listeners.wait_for(|all| found(all).is_some())).await.unwrap();
    found(&all).unwrap()
}

#[tokio::test]
async fn a_listener_opens_and_closes_while_the_others_serve_on() {
    let address = Upstream::new().await.answer_all();
    let mut setup = Setup::new().service("orders", &[address]);
    setup.config.workers = 2;
    let gateway = setup.start().await;
    let mut before = Wire::connect(gateway.edge).await;
    assert_eq!(before.ask(&get("/orders/")).await.status(), 200);
    gateway
        .change(|snapshot| {
            let extra = listener("extra", loopback(), Role::Edge);
            snapshot.listeners.insert(extra.id.clone(), Arc::new(extra));
        })
        .await;
    let extra = status(&gateway, "extra", |_| true).await.local().unwrap();
    let mut client = Wire::connect(extra).await;
    assert_eq!(client.ask(&get("/orders/")).await.status(), 200);

    gateway.change(|snapshot| _ = snapshot.listeners.remove(&ListenerId::new("extra"))).await;
    let mut listeners = gateway.proxy().listeners();
    soon(listeners.wait_for(|all| all.len() == 2)).await.unwrap();
    assert!(tokio::net::TcpStream::connect(extra).await.is_err(), "closed on every worker");
    let answer = client.ask(&get("/orders/")).await;
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (200, Some("close")),
        "but no connection is cut"
    );
    assert_eq!(before.ask(&get("/orders/")).await.field("connection"), None);
}

#[tokio::test]
async fn an_address_can_move_to_another_listener() {
    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    let edge = gateway.edge;
    gateway
        .change(|snapshot| {
            let moved = listener("moved", edge, Role::Cluster);
            snapshot.listeners.remove(&ListenerId::new("edge"));
            snapshot.listeners.insert(moved.id.clone(), Arc::new(moved));
        })
        .await;
    assert_eq!(status(&gateway, "moved", |_| true).await.local(), Some(edge));
    let mut client = Wire::connect(edge).await;
    let answer = client.ask("GET http://orders/ HTTP/1.1\r\nhost: orders\r\n\r\n").await;
    assert_eq!(answer.status(), 200, "and has the role of the new one");
}

#[tokio::test]
async fn an_address_that_another_holds_is_told_and_taken_when_it_is_free() {
    // Another that shares its port, as a second gateway would.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.set_reuse_port(true).unwrap();
    held.set_reuse_address(true).unwrap();
    held.bind(&loopback().into()).unwrap();
    held.listen(1).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();

    let gateway = Gateway::orders(&[Upstream::new().await.answer_all()]).await;
    gateway
        .change(|snapshot| {
            let extra = listener("extra", address, Role::Edge);
            snapshot.listeners.insert(extra.id.clone(), Arc::new(extra));
        })
        .await;
    let refused = status(&gateway, "extra", |_| true).await;
    let ListenerState::InUse { message } = &refused.state else { panic!("{refused:?}") };
    assert!(message.contains(&address.to_string()) && message.contains("another process"), "{message}");
    let mut findings = gateway.proxy().findings();
    let told = soon(findings.wait_for(|all| !all.is_empty())).await.unwrap().clone();
    assert_eq!((told[0].reason.as_ref(), &*told[0].resource.name), ("AddressInUse", "extra"));
    let mut client = Wire::connect(gateway.edge).await;
    assert_eq!(client.ask(&get("/orders/")).await.status(), 200, "the others serve");

    drop(held);
    // Any new table is a reason to try again at once.
    gateway.change(|_| {}).await;
    assert_eq!(status(&gateway, "extra", |status| status.local().is_some()).await.local(), Some(address));
    soon(findings.wait_for(|all| all.is_empty())).await.unwrap();
}

#[tokio::test]
async fn an_address_of_nobody_is_denied() {
    let gateway = Gateway::orders(&[]).await;
    gateway
        .change(|snapshot| {
            let extra = listener("extra", ([192, 0, 2, 1], 80).into(), Role::Edge);
            snapshot.listeners.insert(extra.id.clone(), Arc::new(extra));
        })
        .await;
    let denied = status(&gateway, "extra", |_| true).await;
    assert!(
        matches!(&denied.state, ListenerState::Denied { message } if message.contains("no such address"))
    );
}
