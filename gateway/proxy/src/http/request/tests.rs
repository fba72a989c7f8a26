use http::Request;

use super::*;

fn request(method: &str, target: &str, version: Version, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target).version(version);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn asked(parts: &mut Parts, role: Role) -> Result<Asked, Reason> {
    let host = parts.headers.get(header::HOST).cloned();
    normalise(parts, host, &Survey::of(&parts.headers), role, &LiveConfig::default())
        .map_err(|failure| failure.reason)
}

#[test]
fn hosts_are_read_strictly() {
    let sound = [
        ("a", "a", None),
        ("Shop.Example.COM.", "shop.example.com", None),
        ("a.b:8080", "a.b", Some(8080)),
        ("a.:80", "a", Some(80)),
        ("a:", "a", None),
        ("10.0.0.1:80", "10.0.0.1", Some(80)),
        ("[::1]:80", "[::1]", Some(80)),
        ("[FE80::1]", "[fe80::1]", None),
        ("under_score.svc", "under_score.svc", None),
    ];
    for (text, host, port) in sound {
        let target = target((Some(HeaderValue::from_str(text).unwrap()), false)).unwrap();
        assert_eq!((target.host(), target.port), (Some(host), port), "{text}");
    }
    for text in [
        "", ".", "..", "a..b", ":80", "a:b", "a:99999", "a:0", "a:-1", "u@a", "a/b", "a b", "[::1", "[::1]x",
        "[a]", "a,b", "a\\b", "%61", "a?b", "a#b", "a:80:80", ".a",
    ] {
        assert!(target((Some(HeaderValue::from_str(text).unwrap()), false)).is_err(), "{text:?}");
    }
}

#[test]
fn paths_that_mean_different_things_to_different_readers_are_refused() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a.b",
        "/a/..b",
        "/a/b..",
        "/...",
        "/a//b",
        "/%20",
        "/a;v=1",
        "/~a",
        "/a/.well-known/x",
        "/%e2%82%ac",
    ] {
        assert_eq!(path_fault(path), None, "{path}");
    }
    for path in [
        "a",
        "",
        "/.",
        "/..",
        "/a/..",
        "/a/../b",
        "/a/./b",
        "/%2e",
        "/a/%2E%2e/b",
        "/.%2e/",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a%2fb",
        "/a%2Fb",
        "/a\\b",
        "/a%5cb",
        "/a%00",
        "/a%",
        "/a%2",
        "/a%zz",
        "/\u{e9}",
        "/a/%2e;/b",
    ] {
        assert!(path_fault(path).is_some(), "{path}");
    }
}

#[test]
fn the_target_form_decides_by_role() {
    let fields = [("host", "other.test")];
    let mut parts = request("GET", "http://orders/x?y=1", Version::HTTP_11, &fields);
    let Ok(Asked::Forward(target)) = asked(&mut parts, Role::Cluster) else { panic!("forwarded") };
    assert_eq!(target.host(), Some("orders"));
    assert_eq!(parts.headers[header::HOST], "orders");
    assert_eq!(parts.uri, "/x?y=1");

    let table: [(&str, &str, Role, Reason); 6] = [
        ("GET", "http://orders/x", Role::Edge, Reason::TargetForm),
        ("GET", "https://orders/x", Role::Cluster, Reason::BadRequest),
        ("GET", "ftp://orders/x", Role::Cluster, Reason::BadRequest),
        ("GET", "http://u:p@orders/x", Role::Cluster, Reason::BadRequest),
        ("GET", "orders:80", Role::Cluster, Reason::BadRequest),
        ("CONNECT", "orders:80", Role::Cluster, Reason::MethodNotAllowed),
    ];
    for (method, target, role, reason) in table {
        let mut parts = request(method, target, Version::HTTP_11, &fields);
        assert_eq!(asked(&mut parts, role).unwrap_err(), reason, "{method} {target}");
    }
}

#[test]
fn an_absolute_form_without_a_path_asks_for_the_root() {
    for (sent, expected) in
        [("http://orders", "/"), ("http://orders?x=1", "/?x=1"), ("http://orders/?x", "/?x")]
    {
        let mut parts = request("GET", sent, Version::HTTP_11, &[("host", "orders")]);
        asked(&mut parts, Role::Cluster).unwrap();
        assert_eq!(parts.uri, expected, "{sent}");
    }
}

#[test]
fn one_host_is_needed_and_no_more() {
    for (version, fields, reason) in [
        (Version::HTTP_11, &[][..], Some(Reason::BadRequest)),
        (Version::HTTP_10, &[][..], None),
        (Version::HTTP_11, &[("host", "a"), ("host", "a")][..], Some(Reason::BadRequest)),
        (Version::HTTP_11, &[("host", "a, b")][..], Some(Reason::BadRequest)),
        (Version::HTTP_11, &[("host", "")][..], Some(Reason::BadRequest)),
        (Version::HTTP_11, &[("host", "a")][..], None),
    ] {
        let mut parts = request("GET", "/", version, fields);
        assert_eq!(asked(&mut parts, Role::Edge).err(), reason, "{version:?} {fields:?}");
    }
}

#[test]
fn an_http2_authority_becomes_the_host() {
    let mut parts = request("GET", "http://shop.test/x", Version::HTTP_2, &[]);
    asked(&mut parts, Role::Edge).unwrap();
    assert_eq!((parts.headers[header::HOST].as_bytes(), parts.uri.path()), (&b"shop.test"[..], "/x"));
    let mut parts = request("GET", "http://shop.test/x", Version::HTTP_2, &[("host", "else.test")]);
    assert_eq!(asked(&mut parts, Role::Edge).unwrap_err(), Reason::BadRequest);
}

#[test]
fn what_is_not_understood_is_refused_with_its_own_reason() {
    let table: [(&[(&str, &str)], Reason); 4] = [
        (&[("host", "a"), ("expect", "tea")], Reason::ExpectationFailed),
        (&[("host", "a"), ("transfer-encoding", "gzip, chunked")], Reason::UnknownTransferCoding),
        (
            &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            Reason::BadRequest,
        ),
        (&[("host", "a"), ("host", "b")], Reason::BadRequest),
    ];
    for (fields, reason) in table {
        let mut parts = request("POST", "/", Version::HTTP_11, fields);
        assert_eq!(asked(&mut parts, Role::Edge).unwrap_err(), reason, "{fields:?}");
    }
    let long = format!("/{}", "x".repeat(MAX_TARGET));
    let mut parts = request("GET", &long, Version::HTTP_11, &[("host", "a")]);
    assert_eq!(asked(&mut parts, Role::Edge).unwrap_err(), Reason::TargetTooLong);
}

#[test]
fn max_forwards_is_counted_down_and_ends_here_at_zero() {
    let mut parts = request("TRACE", "/", Version::HTTP_11, &[("host", "a"), ("max-forwards", "0")]);
    assert!(matches!(asked(&mut parts, Role::Edge), Ok(Asked::Answer)));
    let mut parts = request("OPTIONS", "/", Version::HTTP_11, &[("host", "a"), ("max-forwards", "3")]);
    assert!(matches!(asked(&mut parts, Role::Edge), Ok(Asked::Forward(_))));
    assert_eq!(parts.headers[header::MAX_FORWARDS], "2");
    let mut parts = request("GET", "/", Version::HTTP_11, &[("host", "a"), ("max-forwards", "0")]);
    assert!(matches!(asked(&mut parts, Role::Edge), Ok(Asked::Forward(_))));
    let mut parts = request("OPTIONS", "*", Version::HTTP_11, &[("host", "a")]);
    assert!(matches!(asked(&mut parts, Role::Edge), Ok(Asked::Answer)));
    let mut parts = request("GET", "*", Version::HTTP_11, &[("host", "a")]);
    assert_eq!(asked(&mut parts, Role::Edge).unwrap_err(), Reason::BadRequest);
}
