//! What in a request ties its client to an endpoint.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};
use portolan_model::Affinity;

use crate::cluster::AffinityKey;

/// A key of its own, because the head that it was read from moves on to the endpoint.
#[derive(Debug)]
pub(crate) enum Key {
    Address(IpAddr),
    Header(HeaderValue),
    Cookie(String),
}

impl Key {
    /// Reads the key that this affinity goes by; none if the request has none.
    pub(crate) fn read(affinity: &Affinity, client: IpAddr, headers: &HeaderMap) -> Option<Self> {
        match affinity {
            Affinity::None => None,
            Affinity::ClientIp => Some(Self::Address(client)),
            Affinity::Header(name) => headers.get(name.as_str()).cloned().map(Self::Header),
            Affinity::Cookie(name) => cookie(headers, name).map(|value| Self::Cookie(value.to_owned())),
        }
    }

    /// The key as the balancer takes it.
    pub(crate) fn as_key(&self) -> AffinityKey<'_> {
        match self {
            Self::Address(address) => AffinityKey::ClientIp(*address),
            Self::Header(value) => AffinityKey::Header(value.as_bytes()),
            Self::Cookie(value) => AffinityKey::Cookie(value),
        }
    }
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("xid=1; id=2;id2=3"));
        headers.append(header::COOKIE, HeaderValue::from_static("later=a=b"));
        assert_eq!(cookie(&headers, "id"), Some("2"));
        assert_eq!(cookie(&headers, "later"), Some("a=b"));
        assert_eq!(cookie(&headers, "i"), None);
    }
}
