//! Which fields may stand in trailers.
//!
//! RFC 9110 section 6.5.1: what is needed before the body, to frame, route, authorize or understand a message, has no
//! place behind it. A receiver may join trailers to the head, and then they would be a way past what looks at the head.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Whether a field may stand in trailers.
pub(crate) fn is_fit(name: &HeaderName) -> bool {
    let name = name.as_str();
    !(UNFIT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || UNFIT.contains(&name)
        || super::strangers::is_for_proxies(name))
}

const UNFIT_PREFIXES: [&str; 5] = ["content-", "if-", "proxy-", "x-forwarded-", "access-control-"];

const UNFIT: [&str; 31] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy",
    "range",
    "referer",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-request-id",
];

/// Leaves in `Trailer` only what may come: some receivers refuse a message that announces more.
pub(crate) fn announce_fit(headers: &mut HeaderMap) {
    let mut names = Vec::new();
    for value in headers.get_all(header::TRAILER) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if HeaderName::from_bytes(name).is_ok_and(|name| is_fit(&name)) {
                names.push(name);
            }
        }
    }
    match HeaderValue::from_bytes(&names.join(&b", "[..])) {
        Ok(value) if !names.is_empty() => headers.insert(header::TRAILER, value),
        _ => headers.remove(header::TRAILER),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_come_is_announced() {
        let announced = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::TRAILER, HeaderValue::from_static(value));
            }
            announce_fit(&mut headers);
            headers.get(header::TRAILER).cloned()
        };
        assert_eq!(announced(&["X-Sum, Content-Length", ", grpc-status"]).unwrap(), "X-Sum, grpc-status");
        assert_eq!(announced(&["Transfer-Encoding, Trailer, @"]), None);
    }
}
