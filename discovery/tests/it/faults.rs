//! An API server that is away, slow, silent, forgetful or mad: what was known serves on, and what was missed is found.

use std::time::Duration;

use tokio::time::Instant;

use crate::api_server::{ApiServer, Ask, Fault, NAMESPACES, SERVICES, SLICES, namespace, service, slice};
use crate::gateway::{Gateway, timings};

const PICTURES: [Ask; 2] = [Ask::List, Ask::StreamingList];
const READS: [Ask; 3] = [Ask::List, Ask::StreamingList, Ask::Watch];

/// A server with `shop/orders` on 10.1.0.1.
async fn shop() -> ApiServer {
    let server = ApiServer::start().await;
    fill(&server);
    server
}

fn fill(server: &ApiServer) {
    server.put(NAMESPACES, namespace("shop", false));
    server.put(SERVICES, service("shop", "orders"));
    server.put(SLICES, slice("shop", "orders", &["10.1.0.1"]));
}

#[tokio::test]
async fn a_server_that_refuses_at_first_is_waited_for() {
    let mut server = ApiServer::stopped().await;
    fill(&server);
    let mut gateway = Gateway::on(&server);
    let finding = gateway.finding("OutOfTouch").await;
    assert!(finding.message.contains("Connection refused"), "{finding}");
    // There is one for each kind; which comes first does not matter.
    assert!(finding.field.contains(" in namespace shop"), "{finding}");
    assert!(!gateway.is_ready() && !gateway.is_fresh());
    server.resume().await;
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.fresh(true).await;
    gateway.no_finding("OutOfTouch").await;
}

#[tokio::test]
async fn while_the_server_is_away_content_stays_and_what_was_missed_is_found_after() {
    let mut server = shop().await;
    server.put(SERVICES, service("shop", "bills"));
    server.put(SLICES, slice("shop", "bills", &["10.1.0.9"]));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.fresh(true).await;

    server.stop().await;
    gateway.fresh(false).await;
    gateway.finding("OutOfTouch").await;
    assert!(gateway.is_ready(), "once ready, always ready");
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.serves("bills", &["10.1.0.9:8080"]).await;

    // A change and a deletion that nobody could hear.
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    server.delete(SERVICES, "shop", "bills");
    server.expire();
    server.resume().await;
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    gateway.serves_not("bills").await;
    gateway.fresh(true).await;
    gateway.no_finding("OutOfTouch").await;
}

#[tokio::test]
async fn a_store_that_was_put_back_during_an_outage_is_seen_as_it_is() {
    let mut server = shop().await;
    server.put(SERVICES, service("shop", "bills"));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.serves("bills", &[]).await;

    server.stop().await;
    gateway.fresh(false).await;
    server.put_back();
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    server.delete(SERVICES, "shop", "bills");
    server.resume().await;
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    gateway.serves_not("bills").await;
    gateway.fresh(true).await;
    server.put(SLICES, slice("shop", "orders", &["10.1.0.3"]));
    gateway.serves("orders", &["10.1.0.3:8080"]).await;
    for collection in [SERVICES, SLICES] {
        let pictures = server.requests().into_iter().filter(|it| it.is(collection, Ask::StreamingList));
        assert_eq!(pictures.count(), 2, "one picture for an outage: {collection}");
    }
}

#[tokio::test]
async fn a_version_that_goes_back_takes_a_new_picture() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    // So that a watch, and not a picture, is open.
    server.wait_for_one_more(SLICES, Ask::Watch).await;
    server.put_back();
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    server.send_raw(
        SLICES,
        "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"EndpointSlice\",\"apiVersion\":\"discovery.k8s.io/v1\",\
         \"metadata\":{\"resourceVersion\":\"11\"}}}\n",
    );
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    assert_eq!(gateway.metric("portolan_watch_restarts_total", ("why", "went_back")), 1.0);
}

#[tokio::test]
async fn without_streaming_lists_pages_are_read() {
    for code in [400, 422] {
        let server = shop().await;
        for number in 0..5 {
            server.put(SERVICES, service("shop", &format!("s{number}")));
        }
        server.fail(
            SERVICES,
            &[Ask::StreamingList],
            Fault::Status(code, "sendInitialEvents is forbidden", None),
        );
        server.fail(
            SLICES,
            &[Ask::StreamingList],
            Fault::Status(code, "sendInitialEvents is forbidden", None),
        );
        server.set_page(2);
        let mut gateway = Gateway::on(&server);
        gateway.ready().await;
        gateway.serves("orders", &["10.1.0.1:8080"]).await;
        gateway.serves("s4", &[]).await;
        let requests = server.requests();
        let pages: Vec<_> = requests.iter().filter(|request| request.is(SERVICES, Ask::List)).collect();
        assert_eq!(pages.len(), 3, "six Services on pages of two");
        assert!(pages.iter().all(|page| page.query["limit"] == "500"));
        server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
        gateway.serves("orders", &["10.1.0.2:8080"]).await;
        // Another picture does not try again what the server does not have.
        server.expire();
        server.close_watches();
        server.wait_for_one_more(SERVICES, Ask::List).await;
        let tries = server.requests().into_iter().filter(|request| request.is(SERVICES, Ask::StreamingList));
        assert_eq!(tries.count(), 1);
    }
}

#[tokio::test]
async fn a_streaming_list_without_an_end_falls_back_to_pages() {
    let server = shop().await;
    server.ignore_send_initial_events();
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    assert!(server.requests().iter().any(|request| request.is(SERVICES, Ask::List)));
}

#[tokio::test]
async fn a_page_that_fails_shows_nothing_of_the_list() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    server.fail(SLICES, &PICTURES, Fault::Body(br#"{"kind":"List","metadata":{},"items":[]}"#));
    server.expire();
    server.close_watches();
    // An empty list without a version is no list.
    server.wait_for_one_more(SLICES, Ask::List).await;
    server.wait_for_one_more(SLICES, Ask::List).await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    server.heal();
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
}

#[tokio::test]
async fn a_list_that_hangs_is_tried_again() {
    let server = shop().await;
    server.fail(SERVICES, &PICTURES, Fault::Hang);
    let mut gateway = Gateway::on(&server);
    let finding = gateway.finding("OutOfTouch").await;
    assert!(finding.message.contains("no answer within"), "{finding}");
    server.wait_for_one_more(SERVICES, Ask::List).await;
    assert!(!gateway.is_ready());
    server.heal();
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn a_streaming_list_that_stalls_is_tried_again() {
    let server = shop().await;
    server.fail(SERVICES, &PICTURES, Fault::Silence);
    let mut gateway = Gateway::on(&server);
    server.wait_for_one_more(SERVICES, Ask::List).await;
    server.heal();
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn after_410_the_old_content_serves_until_the_new_is_complete() {
    let server = shop().await;
    server.put(SERVICES, service("shop", "bills"));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("bills", &[]).await;

    server.expire();
    server.fail(SERVICES, &PICTURES, Fault::Hang);
    server.close_watches();
    server.wait_for_one_more(SERVICES, Ask::StreamingList).await;
    server.delete(SERVICES, "shop", "bills");
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.serves("bills", &[]).await;
    server.heal();
    gateway.serves_not("bills").await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn a_410_inside_a_watch_takes_a_new_picture() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    let error = r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired","message":"too old"}}"#;
    server.send_raw(SLICES, format!("{error}\n"));
    server
        .wait_for("a second picture", |requests| {
            requests.iter().filter(|request| request.is(SLICES, Ask::StreamingList)).count() == 2
        })
        .await;
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    assert_eq!(gateway.metric("portolan_watch_restarts_total", ("why", "expired")), 1.0);
}

#[tokio::test]
async fn garbage_on_a_watch_begins_it_anew_from_the_last_version() {
    for garbage in
        ["<html>502</html>\n", "{\"type\":\"ADDED\",\"object\":{}}\n", "\u{0}\u{fffd}[[[\n", "{}\n"]
    {
        let server = shop().await;
        let mut gateway = Gateway::on(&server);
        gateway.ready().await;
        gateway.serves("orders", &["10.1.0.1:8080"]).await;
        server.send_raw(SLICES, garbage);
        server.wait_for_one_more(SLICES, Ask::Watch).await;
        server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
        gateway.serves("orders", &["10.1.0.2:8080"]).await;
        assert_eq!(gateway.metric("portolan_watch_restarts_total", ("why", "garbled")), 1.0, "{garbage}");
    }
}

#[tokio::test]
async fn an_event_that_is_cut_off_comes_again() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    // The server dies while it writes; the object is in its store.
    server.send_raw(SLICES, r#"{"type":"MODIFIED","object":{"metadata":{"name":"orders-x1","namespa"#);
    server.close_watches();
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    assert_eq!(gateway.metric("portolan_watch_malformed_total", ("kind", "EndpointSlice")), 0.0);
}

#[tokio::test]
async fn a_server_that_answers_nonsense_is_not_believed() {
    for nonsense in [&b"<html>welcome</html>"[..], b"{}", b"null", b"{\"items\":7}", b"", b"\xff\xfe"] {
        let server = shop().await;
        server.fail(SERVICES, &PICTURES, Fault::Body(nonsense));
        let mut gateway = Gateway::on(&server);
        gateway.finding("OutOfTouch").await;
        server.wait_for_one_more(SERVICES, Ask::List).await;
        assert!(!gateway.is_ready());
        server.heal();
        gateway.ready().await;
        gateway.serves("orders", &["10.1.0.1:8080"]).await;
    }
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_noticed() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    gateway.fresh(true).await;
    server.fail(SLICES, &[Ask::Watch], Fault::Silence);
    server.close_watches();
    server.wait_for_one_more(SLICES, Ask::Watch).await;
    let silent_since = Instant::now();
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    server.heal();
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    let bound = timings().watch + timings().margin + Duration::from_secs(4);
    assert!(silent_since.elapsed() < bound, "noticed only after {:?}", silent_since.elapsed());
    assert_eq!(gateway.metric("portolan_watch_restarts_total", ("why", "timed_out")), 1.0);
}

#[tokio::test]
async fn a_watch_that_ends_at_once_is_not_asked_for_in_a_loop() {
    let server = shop().await;
    server.fail(SERVICES, &[Ask::Watch], Fault::Body(b""));
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    server.close_watches();
    server.wait_for_one_more(SERVICES, Ask::Watch).await;
    let (start, before) = (Instant::now(), server.requests().len());
    while start.elapsed() < Duration::from_millis(500) {
        server.wait_for_one_more(SERVICES, Ask::Watch).await;
    }
    let asked = server.requests()[before..].iter().filter(|request| request.is(SERVICES, Ask::Watch)).count();
    // The mean wait is 30 ms with these times; the floor is 5 ms.
    let most = usize::try_from(start.elapsed().as_millis() / 8).unwrap();
    assert!(asked < most, "{asked} watches in {:?}", start.elapsed());
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn errors_of_the_server_are_survived() {
    let server = shop().await;
    let mut gateway = Gateway::on(&server);
    gateway.ready().await;
    server.fail(SLICES, &READS, Fault::Status(500, "etcdserver: request timed out", None));
    server.close_watches();
    gateway.fresh(false).await;
    let finding = gateway.finding("OutOfTouch").await;
    assert!(finding.message.contains("etcdserver: request timed out"), "{finding}");
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
    server.put(SLICES, slice("shop", "orders", &["10.1.0.2"]));
    server.heal();
    gateway.serves("orders", &["10.1.0.2:8080"]).await;
    gateway.fresh(true).await;
}

#[tokio::test]
async fn a_throttling_server_is_asked_again_when_it_says() {
    let server = shop().await;
    server.fail(SERVICES, &PICTURES, Fault::Status(429, "too many requests", Some(1)));
    let mut gateway = Gateway::on(&server);
    server.wait_for_one_more(SERVICES, Ask::StreamingList).await;
    let first = server.requests().iter().find(|it| it.is(SERVICES, Ask::StreamingList)).unwrap().at;
    server.heal();
    gateway.ready().await;
    let second = server.requests().iter().rfind(|it| it.is(SERVICES, Ask::StreamingList)).unwrap().at;
    assert!(second - first >= Duration::from_secs(1), "asked again after {:?}", second - first);
    gateway.serves("orders", &["10.1.0.1:8080"]).await;
}
