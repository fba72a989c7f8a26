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
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri};

use crate::http::headers::X_FORWARDED_PREFIX;
use crate::http::outbound::Outbound;

/// Takes the prefix off. A path that does not start with it stays as it is; the rule's match guarantees that it does.
pub(super) fn apply_request(prefix: &str, request: &mut Outbound) {
    let Some(rest) = request.target().strip_prefix(prefix) else { return };
    if rest.starts_with('/') && !request.added.follows_proxy {
        request.strip(prefix.len());
    } else {
        rewrite(prefix, request);
    }
}

/// Makes the target anew: what is left of it needs a slash in front, or the prefix is to join what was told before.
fn rewrite(prefix: &str, request: &mut Outbound) {
    let rest = &request.target()[prefix.len()..];
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let Ok(stripped) = PathAndQuery::try_from(format!("{slash}{rest}")) else { return };
    let prefix = [request.prefix(), prefix].concat();
    request.parts.uri = Uri::from(stripped);
    request.unstrip();
    tell_prefix(&prefix, &mut request.parts.headers);
}

/// Adds to what a trusted proxy took off before (that of others is gone by now).
fn tell_prefix(prefix: &str, headers: &mut HeaderMap) {
    match headers.entry(X_FORWARDED_PREFIX) {
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

    /// The target and the prefix that an endpoint gets to see.
    fn stripped(sent: &str, prefixes: &[&str], before: Option<&'static str>) -> (String, Option<String>) {
        let mut request = Outbound::from(http::Request::builder().uri(sent).body(()).unwrap().into_parts().0);
        if let Some(before) = before {
            request.parts.headers.insert(X_FORWARDED_PREFIX, HeaderValue::from_static(before));
            request.added.follows_proxy = true;
        }
        for prefix in prefixes {
            apply_request(prefix, &mut request);
        }
        let mut beside = Vec::new();
        request.write_added(&mut beside);
        let beside = String::from_utf8(beside).unwrap();
        let line = beside.strip_prefix("x-forwarded-prefix: ").map(|line| line.trim_end().to_owned());
        let field = request.parts.headers.get(X_FORWARDED_PREFIX);
        let field = field.map(|value| value.to_str().unwrap().to_owned());
        assert!(line.is_none() || field.is_none(), "told once");
        (request.target().to_owned(), line.or(field))
    }

    #[test]
    fn what_is_left_starts_with_a_slash_and_keeps_its_query() {
        for (sent, expected) in [
            ("/orders", "/"),
            ("/orders/", "/"),
            ("/orders/7", "/7"),
            ("/orders/7?x=/orders", "/7?x=/orders"),
            ("/orders?x", "/?x"),
            ("/orders//7", "//7"),
        ] {
            let told = Some("/orders".to_owned());
            assert_eq!(stripped(sent, &["/orders"], None), (expected.to_owned(), told), "{sent}");
        }
        assert_eq!(stripped("/other", &["/orders"], None), ("/other".to_owned(), None));
    }

    #[test]
    fn prefixes_add_up() {
        for (sent, prefixes, before, target, told) in [
            ("/orders/7", &["/orders"][..], Some("/eu/"), "/7", "/eu/orders"),
            ("/eu/orders/7", &["/eu", "/orders"], None, "/7", "/eu/orders"),
            ("/eu/orders", &["/eu", "/orders"], None, "/", "/eu/orders"),
            ("/eu/orders?x", &["/eu", "/orders"], Some("/world"), "/?x", "/world/eu/orders"),
        ] {
            assert_eq!(
                stripped(sent, prefixes, before),
                (target.to_owned(), Some(told.to_owned())),
                "{sent}"
            );
        }
    }
}
