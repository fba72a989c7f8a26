//! What endpoints do with their connections, and what is made of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Gateway, Upstream, Wire, get, ok, post, soon};

/// Has a request answered like this on a new connection; gives the endpoint's end of that.
async fn answered(upstream: &Upstream, client: &mut Wire, answer: &str) -> Wire {
    client.write(&get("/orders/")).await;
    let mut endpoint = upstream.accept().await;
    endpoint.next_message().await.unwrap();
    endpoint.write(answer).await;
    endpoint
}

#[tokio::test]
async fn a_connection_that_says_so_carries_no_second_request() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        // Bytes that belong to no response.
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!",
    ] {
        let upstream = Upstream::new().await;
        let gateway = Gateway::orders(&[upstream.address]).await;
        let mut client = Wire::connect(gateway.edge).await;
        let mut endpoint = answered(&upstream, &mut client, answer).await;
        assert_eq!(client.next_message().await.unwrap().status(), 200, "{answer}");
        assert!(endpoint.is_closed().await, "{answer}");
        gateway.metric_is("portolan_upstream_connections", 0.0).await;
    }
}

#[tokio::test]
async fn an_http_1_0_endpoint_may_keep_its_connection() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let answer = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi";
    let mut endpoint = answered(&upstream, &mut client, answer).await;
    assert_eq!(client.next_message().await.unwrap().text(), "hi");
    client.write(&get("/orders/")).await;
    endpoint.next_message().await.unwrap();
    endpoint.write(&ok("again", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "again");
}

/// No request has to come for it: the sweep looks.
#[tokio::test]
async fn an_idle_connection_that_its_endpoint_closes_is_closed_here_too() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let endpoint = answered(&upstream, &mut client, &ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
    gateway.metric_is("portolan_upstream_connections", 1.0).await;
    drop(endpoint);
    gateway.metric_is("portolan_upstream_connections", 0.0).await;
}

/// It is no answer to the request that comes next.
#[tokio::test]
async fn what_an_idle_endpoint_says_unasked_is_not_heard() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    let mut endpoint = answered(&upstream, &mut client, &ok("", "")).await;
    assert_eq!(client.next_message().await.unwrap().status(), 200);
    endpoint.write("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await;
    let mut other = answered(&upstream, &mut client, &ok("right", "")).await;
    assert_eq!(client.next_message().await.unwrap().text(), "right");
    assert!(endpoint.is_closed().await);
    client.write(&post("/orders/", "body")).await;
    assert_eq!(other.next_message().await.unwrap().text(), "body");
}

#[tokio::test]
async fn a_body_until_the_close_ends_whole_or_visibly_broken() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    for whole in [true, false] {
        let mut client = Wire::connect(gateway.edge).await;
        let endpoint = answered(&upstream, &mut client, "HTTP/1.1 200 OK\r\n\r\nhalf").await;
        client.head().await.unwrap();
        assert_eq!(client.bytes(9).await, b"4\r\nhalf\r\n");
        if whole {
            drop(endpoint);
            assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
        } else {
            endpoint.reset();
            assert!(client.is_closed().await);
        }
    }
}

#[tokio::test]
async fn chunks_that_are_none_break_the_response() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    for chunk in ["x\r\n", "-1\r\n", "3\r\nabcd\r\n", "3 \r\nabc\r\n", "3\nabc\r\n", "0\r\na b\r\n\r\n"] {
        let mut client = Wire::connect(gateway.edge).await;
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n!\r\n{chunk}");
        let mut endpoint = answered(&upstream, &mut client, &answer).await;
        // What came before may be lost with it.
        let mut rest = Vec::new();
        soon(client.stream.read_to_end(&mut rest)).await.ok();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{chunk:?} ended well: {}", rest.escape_ascii());
        assert!(endpoint.is_closed().await);
        gateway.logged(|line| line["reason"] == "upstream_protocol").await;
    }
}

/// A head is bounded like any other input.
#[tokio::test]
async fn a_head_without_end_is_given_up() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    for fields in [format!("a: {}\r\n", "x".repeat(70_000)), "a: b\r\n".repeat(101)] {
        let mut client = Wire::connect(gateway.edge).await;
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
        let _endpoint = answered(&upstream, &mut client, &answer).await;
        let answer = client.next_message().await.unwrap();
        assert_eq!((answer.status(), answer.reason()), (502, "upstream_protocol"));
    }
}

/// The endpoint answers at once and reads on; the client reads nothing before it has sent everything. Each direction is
/// more than all buffers on the way hold.
#[tokio::test]
async fn an_answer_that_nobody_reads_yet_does_not_stop_the_upload() {
    const LENGTH: usize = 48 << 20;
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write(&format!("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    let (request, mut response) = endpoint.stream.into_split();
    let reading = tokio::spawn(async move {
        let mut body = request.take(LENGTH as u64);
        tokio::io::copy(&mut body, &mut tokio::io::sink()).await.unwrap()
    });
    let writing = tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
        response.write_all(head.as_bytes()).await.unwrap();
        response.write_all(&vec![b'x'; LENGTH]).await.unwrap();
        response
    });
    soon(client.stream.write_all(&vec![b'x'; LENGTH])).await.unwrap();
    assert_eq!(soon(reading).await.unwrap(), LENGTH as u64);
    client.head().await.unwrap();
    assert_eq!(soon(client.bytes(LENGTH)).await.len(), LENGTH);
    soon(writing).await.unwrap();
}

/// An endpoint that answers and takes no more of the request has answered all the same.
#[tokio::test]
async fn an_answer_before_the_endpoint_stops_reading_is_relayed() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::orders(&[upstream.address]).await;
    let mut client = Wire::connect(gateway.edge).await;
    client.write("POST /orders/ HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await;
    let mut endpoint = upstream.accept().await;
    endpoint.head().await.unwrap();
    endpoint
        .write("HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig")
        .await;
    drop(endpoint);
    let answer = client.next_message().await.unwrap();
    assert_eq!((answer.status(), answer.text()), (413, "big"));
    assert!(client.is_closed().await);
}
