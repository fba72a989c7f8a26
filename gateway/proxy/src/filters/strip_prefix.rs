//! Takes the part of the path off by which the route was found (Spring Cloud Gateway: `StripPrefix`, and what its
//! discovery locator does to `/NAME/**`).
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     portolan.dev/path: /shop/orders
//!     portolan.dev/strip-prefix: "true"
//! ```
//!
//! `/shop/orders/7?x=1` is `/7?x=1` for the backend, and `/shop/orders` stands in `X-Forwarded-Prefix`, from which a
//! framework can make links that lead back here.

use http::header::Entry;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use crate::http::headers::X_FORWARDED_PREFIX;

/// Takes the prefix off. A path that does not start with it stays as it is; the rule's match guarantees that it does.
pub(super) fn apply_request(prefix: &str, request: &mut Parts) {
    let Some(target) = request.uri.path_and_query() else { return };
    let Some(rest) = target.as_str().strip_prefix(prefix) else { return };
    let stripped = if rest.starts_with('/') {
        PathAndQuery::try_from(rest)
    } else {
        PathAndQuery::try_from(format!("/{rest}"))
    };
    let Ok(stripped) = stripped else { return };
    request.uri = Uri::from(stripped);
    tell_prefix(prefix, request);
}

/// Adds to what a trusted proxy took off before (that of others is gone by now).
fn tell_prefix(prefix: &str, request: &mut Parts) {
    match request.headers.entry(X_FORWARDED_PREFIX) {
        Entry::Vacant(vacant) => {
            if let Ok(value) = HeaderValue::from_str(prefix) {
                vacant.insert(value);
            }
        }
        Entry::Occupied(mut occupied) => {
            let before = occupied.get().to_str().unwrap_or_default().trim_end_matches('/');
            if let Ok(value) = HeaderValue::try_from(format!("{before}{prefix}")) {
                occupied.insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_starts_with_a_slash_and_keeps_its_query() {
        for (sent, expected) in [
            ("/orders", "/"),
            ("/orders/", "/"),
            ("/orders/7", "/7"),
            ("/orders/7?x=/orders", "/7?x=/orders"),
            ("/orders?x", "/?x"),
            ("/orders//7", "//7"),
            ("/other", "/other"),
        ] {
            let mut parts = http::Request::builder().uri(sent).body(()).unwrap().into_parts().0;
            apply_request("/orders", &mut parts);
            assert_eq!(parts.uri, expected, "{sent}");
        }
    }

    #[test]
    fn prefixes_add_up() {
        let request = http::Request::builder().uri("/orders/7").header("x-forwarded-prefix", "/eu/");
        let mut parts = request.body(()).unwrap().into_parts().0;
        apply_request("/orders", &mut parts);
        assert_eq!(parts.headers["x-forwarded-prefix"], "/eu/orders");
    }
}
