//! What a swap keeps and what it changes.

use std::sync::Mutex;
use std::time::Duration;

use portolan_model::EndpointKey;
use tokio::sync::watch;

use super::*;
use crate::cluster::{Balancers, PickContext};
use crate::table::Publication;

#[tokio::test]
async fn an_endpoint_keeps_its_identity_while_its_key_stays() {
    let (mut publisher, published) = publisher();
    let routes = [path_route("orders")];
    publisher.publish(&snapshot(1, &routes, &[cluster("orders", &["10.0.0.1:80", "10.0.0.2:80"])]));
    let before = published.table.load_full();
    let known = before.clusters().find(&cluster_id("orders")).unwrap().clone();
    let kept = known.state().endpoints[1].clone();
    let gone = known.state().endpoints[0].clone();
    let running = Balancers::new(0, 1).pick(&known, &now()).unwrap();

    publisher.publish(&snapshot(2, &routes, &[cluster("orders", &["10.0.0.2:80", "10.0.0.3:80"])]));
    let after = published.table.load_full();
    assert_eq!((before.generation(), after.generation()), (1, 2));
    let state = after.clusters().find(&cluster_id("orders")).unwrap().state();
    assert!(Arc::ptr_eq(&state.endpoints[0], &kept), "what it knows of the endpoint survives");
    assert!(gone.is_retired() && !kept.is_retired());
    assert_eq!(gone.in_flight() + kept.in_flight(), 1, "a running request counts on");
    drop(running);
    assert_eq!(gone.in_flight() + kept.in_flight(), 0);
}

#[tokio::test]
async fn another_pod_at_the_same_address_is_another_endpoint() {
    let with_uid = |uid: &str| {
        let mut said = (*cluster("orders", &["10.0.0.1:80"])).clone();
        let key = EndpointKey { address: "10.0.0.1:80".parse().unwrap(), uid: Some(uid.into()) };
        said.endpoints = Arc::new([Endpoint { key, ..said.endpoints[0].clone() }]);
        Arc::new(said)
    };
    let (mut publisher, published) = publisher();
    publisher.publish(&snapshot(1, &[], &[with_uid("old")]));
    let old =
        published.table.load().clusters().find(&cluster_id("orders")).unwrap().state().endpoints[0].clone();
    publisher.publish(&snapshot(2, &[], &[with_uid("new")]));
    let new =
        published.table.load().clusters().find(&cluster_id("orders")).unwrap().state().endpoints[0].clone();
    assert_eq!(old.address(), new.address());
    assert_ne!(old.id(), new.id());
    assert_ne!(old.affinity_token(), new.affinity_token());
    assert!(old.is_retired() && !new.is_retired());
}

#[tokio::test]
async fn endpoints_alone_compile_nothing_and_touch_no_other_cluster() {
    let (mut publisher, published) = publisher();
    let routes = [path_route("orders"), path_route("billing")];
    let billing = cluster("billing", &["10.0.1.1:80"]);
    let first = snapshot(1, &routes, &[cluster("orders", &["10.0.0.1:80"]), billing]);
    publisher.publish(&first);
    let before = published.table.load_full();
    let untouched = before.clusters().find(&cluster_id("billing")).unwrap().state();

    let mut second = (*first).clone();
    second.generation = 2;
    second.clusters.insert(cluster_id("orders"), cluster("orders", &["10.0.0.9:80"]));
    publisher.publish(&Arc::new(second));
    let after = published.table.load_full();
    assert!(after.same_routes(&before));
    let state = |name: &str| after.clusters().find(&cluster_id(name)).unwrap().state();
    assert!(Arc::ptr_eq(&state("billing"), &untouched));
    assert_eq!(state("orders").endpoints[0].address(), "10.0.0.9:80".parse().unwrap());
    let asked = get("/orders");
    let rule = before.find_http(Role::Edge, &asked.view()).unwrap();
    assert_eq!(rule.backend(0).unwrap().state().generation, 2, "an old table sees new endpoints");
}

#[tokio::test]
async fn a_route_that_did_not_change_is_taken_over_and_metrics_numbers_stay() {
    let (mut publisher, published) = publisher();
    let (kept, changed) = (path_route("kept"), path_route("changed"));
    publisher.publish(&snapshot(1, &[kept.clone(), changed], &[]));
    let before = published.table.load_full();
    let changed =
        route("changed", Vec::new(), vec![rule(rank("changed", 0, [0, 0, 0]), vec![prefix("/new")], "a")]);
    publisher.publish(&snapshot(2, &[kept, changed, path_route("added")], &[]));
    let after = published.table.load_full();
    let find = |table: &RoutingTable, url: &str| {
        let asked = get(url);
        table.find_http(Role::Edge, &asked.view()).unwrap().clone()
    };
    assert!(Arc::ptr_eq(&find(&before, "/kept"), &find(&after, "/kept")));
    assert_eq!(find(&before, "/changed").metrics, find(&after, "/new").metrics);
    assert_ne!(find(&after, "/added").metrics, find(&after, "/kept").metrics);
}

#[tokio::test]
async fn what_left_is_retired_after_the_swap_and_balancers_let_go_of_it() {
    let (mut publisher, mut published) = publisher();
    publisher.publish(&snapshot(1, &[], &[cluster("orders", &["10.0.0.1:80"])]));
    assert_eq!(*published.retirements.borrow_and_update(), 0);
    let orders = published.table.load().clusters().find(&cluster_id("orders")).unwrap().clone();
    let mut balancers = Balancers::new(0, 1);
    drop(balancers.pick(&orders, &now()).unwrap());
    balancers.sweep();
    let held = Arc::strong_count(&orders);
    publisher.publish(&snapshot(2, &[], &[]));
    assert!(orders.is_retired() && orders.state().endpoints[0].is_retired());
    assert_eq!(*published.retirements.borrow_and_update(), 1);
    balancers.sweep();
    assert!(Arc::strong_count(&orders) < held, "neither the publisher nor the balancers hold it");
}

#[tokio::test]
async fn the_running_publisher_follows_the_snapshots_and_tells_its_observer() {
    let seen = Arc::new(Mutex::new(Vec::<Publication>::new()));
    let observer = Arc::clone(&seen);
    let (publisher, mut published) = Publisher::new(move |swap| observer.lock().unwrap().push(swap.clone()));
    let (send, receive) = watch::channel(Arc::<Snapshot>::default());
    let running = tokio::spawn(publisher.run(receive));
    let mut first = (*snapshot(1, &[path_route("orders")], &[])).clone();
    first.changed_at = Some(Instant::now().into_std());
    send.send_replace(Arc::new(first));
    published.generation.wait_for(|&generation| generation == 1).await.unwrap();
    assert_eq!(published.table.load().generation(), 1);
    send.send_replace(snapshot(2, &[], &[]));
    published.generation.wait_for(|&generation| generation == 2).await.unwrap();
    drop(send);
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();

    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.iter().map(|swap| (swap.generation, swap.compiled)).collect::<Vec<_>>(),
        [(1, true), (2, true)]
    );
    assert!(seen[0].convergence.is_some_and(|convergence| convergence >= seen[0].swap));
    assert!(seen[1].convergence.is_none());
}

fn now() -> PickContext<'static> {
    PickContext { now: Instant::now(), affinity: None, tried: &[], copyable: false }
}
