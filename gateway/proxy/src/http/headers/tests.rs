use http::{Method, Request};
use portolan_model::{Protocol, Role};

use super::*;
use crate::http::request::{Asked, normalise};

fn live() -> LiveConfig {
    LiveConfig { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..LiveConfig::default() }
}

/// The fields that an endpoint gets for a request with these, from this peer.
fn sent_on(peer: &str, version: Version, has_body: bool, fields: &[(&str, &str)]) -> HeaderMap {
    let mut request =
        Request::builder().method(Method::POST).uri("/x").version(version).header("host", "shop.test:81");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = Outbound::from(request.body(()).unwrap().into_parts().0);
    let parts = &mut request.parts;
    let survey = Survey::of(&parts.headers);
    let host = parts.headers.get(header::HOST).cloned();
    let Ok(Asked::Forward(target)) = normalise(parts, host, &survey, Role::Edge, &live()) else {
        panic!("forwarded")
    };
    let peer = Peer::new(peer.parse().unwrap(), Protocol::Http, 8080, &live());
    let signature = Signature::new("portolan-1").unwrap();
    prepare_request(&mut request, &survey, has_body, &peer, &target, Some(&signature));
    all_of(request)
}

/// The fields of the map and those beside it.
fn all_of(request: Outbound) -> HeaderMap {
    let mut lines = Vec::new();
    request.write_added(&mut lines);
    let mut headers = request.parts.headers;
    for line in String::from_utf8(lines).unwrap().split_terminator("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    headers
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn what_is_for_this_hop_alone_ends_here() {
    let headers = sent_on(
        "1.2.3.4",
        Version::HTTP_11,
        false,
        &[
            ("connection", "x-one, close"),
            ("connection", "X-Two, host, content-length"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("proxy-authorization", "secret"),
            ("expect", "100-continue"),
            ("authorization", "Bearer x"),
            ("traceparent", "00-1-2-01"),
        ],
    );
    for gone in [
        "connection",
        "x-one",
        "x-two",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "proxy-authorization",
        "expect",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    for kept in ["x-three", "authorization", "traceparent", "host"] {
        assert!(headers.contains_key(kept), "{kept}");
    }
}

#[test]
fn what_a_stranger_says_of_itself_is_replaced() {
    let headers = sent_on(
        "1.2.3.4",
        Version::HTTP_11,
        false,
        &[
            ("connection", "x-forwarded-for"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-request-id", "mine"),
        ],
    );
    assert_eq!(all(&headers, "x-forwarded-for"), ["1.2.3.4"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["shop.test:81"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(all(&headers, "x-forwarded-port"), ["81"]);
    assert_eq!(all(&headers, "forwarded"), ["for=1.2.3.4;host=\"shop.test:81\";proto=http"]);
    assert!(!headers.contains_key("x-forwarded-prefix"));
    assert_ne!(all(&headers, "x-request-id"), ["mine"]);
    assert_eq!(all(&headers, "via"), ["1.1 portolan-1"]);
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    let headers = sent_on(
        "10.0.0.9",
        Version::HTTP_11,
        false,
        &[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=6.6.6.6;proto=https"),
            ("x-request-id", "theirs"),
            ("via", "1.1 front"),
        ],
    );
    assert_eq!(all(&headers, "x-forwarded-for"), ["6.6.6.6, 7.7.7.7, 10.0.0.9"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(
        all(&headers, "forwarded"),
        ["for=6.6.6.6;proto=https, for=10.0.0.9;host=\"shop.test:81\";proto=http"]
    );
    assert_eq!(all(&headers, "x-request-id"), ["theirs"]);
    assert_eq!(all(&headers, "via"), ["1.1 front", "1.1 portolan-1"]);
}

#[test]
fn an_ipv6_peer_is_quoted_and_a_mapped_one_is_ipv4() {
    let headers = sent_on("2001:db8::1", Version::HTTP_11, false, &[]);
    assert_eq!(all(&headers, "forwarded"), ["for=\"[2001:db8::1]\";host=\"shop.test:81\";proto=http"]);
    let headers = sent_on("::ffff:1.2.3.4", Version::HTTP_11, false, &[]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["1.2.3.4"]);
}

#[test]
fn the_client_is_the_nearest_address_that_is_not_trusted() {
    let table = [
        ("1.2.3.4", &["6.6.6.6"][..], "1.2.3.4"),
        ("10.0.0.1", &[][..], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, 7.7.7.7", "10.0.0.2"][..], "7.7.7.7"),
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"][..], "10.0.0.3"),
        ("10.0.0.1", &["7.7.7.7, nonsense, 10.0.0.2"][..], "10.0.0.2"),
    ];
    for (peer, chain, expected) in table {
        let mut headers = HeaderMap::new();
        for value in chain {
            headers.append(X_FORWARDED_FOR, value.parse().unwrap());
        }
        let client = Peer::new(peer.parse().unwrap(), Protocol::Http, 80, &live()).client(&headers, &live());
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {chain:?}");
    }
}

#[test]
fn trailers_cookies_and_framing_are_made_for_http_1() {
    let headers = sent_on(
        "1.2.3.4",
        Version::HTTP_2,
        true,
        &[("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")],
    );
    assert_eq!(all(&headers, "te"), ["trailers"]);
    assert_eq!(all(&headers, "connection"), ["te"]);
    assert_eq!(all(&headers, "cookie"), ["a=1; b=2"]);
    assert_eq!(all(&headers, "transfer-encoding"), ["chunked"]);
    assert_eq!(all(&headers, "via"), ["2.0 portolan-1"]);
    let headers = sent_on("1.2.3.4", Version::HTTP_11, true, &[("content-length", "3")]);
    assert!(!headers.contains_key("transfer-encoding"));
}

#[test]
fn a_loop_is_known_by_our_own_name_alone() {
    let signature = Signature::new("portolan-1").unwrap();
    for (via, expected) in [
        ("1.1 portolan-1", true),
        ("1.0 a, 1.1 portolan-1 (x), 2 b", true),
        ("1.1 portolan-12", false),
        ("1.1 other (portolan-1)", false),
        ("portolan-1", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, via.parse().unwrap());
        assert_eq!(signature.is_in(&headers), expected, "{via}");
    }
}

#[test]
fn each_field_of_one_hop_is_noticed_by_itself() {
    for (_, name) in &HOP_BY_HOP.each {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(name, HeaderValue::from_static("x"));
        let survey = Survey::of(&headers);
        remove_hop_by_hop(&mut headers, &survey);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [header::ACCEPT], "{name}");
    }
}

#[test]
fn requests_of_one_peer_to_several_hosts_tell_each_its_own() {
    let peer = Peer::new("1.2.3.4".parse().unwrap(), Protocol::Http, 8080, &live());
    for host in ["a.test", "a.test", "b.test", "a.test:81"] {
        let request = Request::builder().uri("/x").header("host", host).body(()).unwrap();
        let mut request = Outbound::from(request.into_parts().0);
        let parts = &mut request.parts;
        let survey = Survey::of(&parts.headers);
        let said = parts.headers.get(header::HOST).cloned();
        let Ok(Asked::Forward(target)) = normalise(parts, said, &survey, Role::Edge, &live()) else {
            panic!()
        };
        prepare_request(&mut request, &survey, false, &peer, &target, None);
        let headers = all_of(request);
        let quoted = if host.contains(':') { format!("\"{host}\"") } else { host.to_owned() };
        assert_eq!(headers["forwarded"], format!("for=1.2.3.4;host={quoted};proto=http"));
    }
}
