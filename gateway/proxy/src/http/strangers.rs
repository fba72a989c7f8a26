//! Fields that only proxies may set: from anyone else they are a lie about who asks, for what, or how, which endpoints
//! believe. One table, so that no name is forgotten where another is thought of.

/// Whether a field of this name may come only from a peer that is trusted. Those that the gateway writes itself are not
/// among them: they are replaced.
#[inline]
pub(crate) fn is_for_proxies(name: &str) -> bool {
    // Most fields are told by their first two letters.
    match name.as_bytes() {
        [b'x', b'-', ..] => begins_with_x(name),
        [b't', ..] => name == "true-client-ip",
        [b'c', b'f', b'-', ..] => name == "cf-connecting-ip",
        _ => false,
    }
}

fn begins_with_x(name: &str) -> bool {
    if let Some(what) = name.strip_prefix("x-forwarded-") {
        return !matches!(what, "for" | "host" | "port" | "proto");
    }
    let prefixes = ["x-envoy-", "x-original-"];
    let names = [
        "x-client-ip",
        "x-cluster-client-ip",
        "x-host",
        "x-http-host-override",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
        "x-rewrite-url",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_who_asks_is_for_proxies_and_nothing_else() {
        for name in
            ["x-real-ip", "x-forwarded-prefix", "x-envoy-internal", "x-original-url", "true-client-ip"]
        {
            assert!(is_for_proxies(name), "{name}");
        }
        for name in ["x-forwarded-for", "x-request-id", "x-api-key", "te", "traceparent", "host", "x-"] {
            assert!(!is_for_proxies(name), "{name}");
        }
    }
}
