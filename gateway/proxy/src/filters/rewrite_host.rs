//! Sends another `Host` to the backend than the client's own (Spring Cloud Gateway: `SetRequestHostHeader`).
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     portolan.dev/upstream-host: orders.internal
//! ```
//!
//! What the client asked stays in `X-Forwarded-Host`.

use http::request::Parts;
use http::{HeaderValue, header};

/// Puts the host in place of the client's. A host that is no field value leaves the client's; the source that said it
/// has checked it before.
pub(super) fn apply_request(host: &str, request: &mut Parts) {
    if let Ok(host) = HeaderValue::from_str(host) {
        request.headers.insert(header::HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_replaced() {
        let request = http::Request::builder().header("host", "shop.test").body(()).unwrap();
        let mut parts = request.into_parts().0;
        apply_request("orders.internal", &mut parts);
        assert_eq!(parts.headers["host"], "orders.internal");
    }
}
