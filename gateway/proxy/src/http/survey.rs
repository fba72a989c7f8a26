//! Which of the fields that matter here a head has.
//!
//! Problem: a dozen fields mean something to a gateway, most heads have few of them, and each look-up of one that is not
//! there hashes its name. Choice: one walk over the fields that are there, which tells all of them by their names'
//! lengths, mostly, and keeps hold of the values that are wanted of every request.

use http::{HeaderMap, HeaderValue};

use super::strangers::is_for_proxies;

/// What one walk over the fields of a head found. It says nothing of fields that come or go afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Survey {
    seen: u32,
    repeated: u32,
    bytes: usize,
}

/// Values that are wanted of every request, of the first field of each name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Values<'a> {
    pub(crate) accept: Option<&'a HeaderValue>,
    pub(crate) content_type: Option<&'a HeaderValue>,
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) user_agent: Option<&'a HeaderValue>,
}

/// Several of those that a survey looks out for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set(u32);

/// A field that a survey looks out for.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Known {
    Accept,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    /// Any of those that only proxies may set.
    ForProxies,
    Proxy,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRequestId,
}

impl Survey {
    /// Walks over the fields.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self::walk(headers, |_, _| {})
    }

    /// Walks over the fields of a request.
    pub(crate) fn with_values(headers: &HeaderMap) -> (Self, Values<'_>) {
        let mut values = Values::default();
        let survey = Self::walk(headers, |known, value| {
            let wanted = match known {
                Known::Accept => &mut values.accept,
                Known::ContentType => &mut values.content_type,
                Known::Host => &mut values.host,
                Known::UserAgent => &mut values.user_agent,
                _ => return,
            };
            wanted.get_or_insert(value);
        });
        (survey, values)
    }

    #[inline]
    fn walk<'a>(headers: &'a HeaderMap, mut met: impl FnMut(Known, &'a HeaderValue)) -> Self {
        let mut survey = Self { seen: 0, repeated: 0, bytes: 0 };
        for (name, value) in headers {
            let name = name.as_str();
            survey.bytes += name.len() + value.len() + ": \r\n".len();
            if let Some(known) = known(name) {
                let bit = 1 << known as u32;
                survey.repeated |= survey.seen & bit;
                survey.seen |= bit;
                met(known, value);
            }
        }
        survey
    }

    /// Whether there is such a field.
    pub(crate) fn has(&self, known: Known) -> bool {
        self.seen & 1 << known as u32 != 0
    }

    /// Whether there is any of these.
    pub(crate) fn has_any(&self, set: Set) -> bool {
        self.seen & set.0 != 0
    }

    /// Whether there is more than one.
    pub(crate) fn repeats(&self, known: Known) -> bool {
        self.repeated & 1 << known as u32 != 0
    }

    /// The length of all fields, as HTTP/1.1 would write them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Set {
    /// Those that are paired with something here.
    pub(crate) const fn of<T>(known: &[(Known, T)]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < known.len() {
            bits |= 1 << known[at].0 as u32;
            at += 1;
        }
        Self(bits)
    }
}

fn known(name: &str) -> Option<Known> {
    Some(match name.len() {
        2 if name == "te" => Known::Te,
        3 if name == "via" => Known::Via,
        4 if name == "host" => Known::Host,
        5 if name == "proxy" => Known::Proxy,
        6 if name == "accept" => Known::Accept,
        6 if name == "cookie" => Known::Cookie,
        6 if name == "expect" => Known::Expect,
        7 if name == "trailer" => Known::Trailer,
        7 if name == "upgrade" => Known::Upgrade,
        9 if name == "forwarded" => Known::Forwarded,
        10 if name == "user-agent" => Known::UserAgent,
        10 if name == "connection" => Known::Connection,
        10 if name == "keep-alive" => Known::KeepAlive,
        12 if name == "content-type" => Known::ContentType,
        12 if name == "x-request-id" => Known::XRequestId,
        14 if name == "content-length" => Known::ContentLength,
        14 if name == "http2-settings" => Known::Http2Settings,
        15 if name == "x-forwarded-for" => Known::XForwardedFor,
        16 if name == "x-forwarded-host" => Known::XForwardedHost,
        16 if name == "x-forwarded-port" => Known::XForwardedPort,
        16 if name == "proxy-connection" => Known::ProxyConnection,
        17 if name == "transfer-encoding" => Known::TransferEncoding,
        17 if name == "x-forwarded-proto" => Known::XForwardedProto,
        18 if name == "proxy-authenticate" => Known::ProxyAuthenticate,
        19 if name == "proxy-authorization" => Known::ProxyAuthorization,
        _ if is_for_proxies(name) => Known::ForProxies,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its length and then by its letters: a name of one group must not be taken for one of another.
    #[test]
    fn names_are_told_apart() {
        let names = "accept connection content-length content-type cookie expect forwarded host http2-settings keep-alive \
             proxy-authenticate proxy-authorization proxy-connection proxy te trailer transfer-encoding upgrade \
             user-agent via x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id x-real-ip";
        let names: Vec<_> = names.split_ascii_whitespace().collect();
        let mut seen = 0;
        for name in &names {
            let bit = 1_u32 << known(name).expect(name) as u32;
            assert_eq!(seen & bit, 0, "{name}");
            seen |= bit;
            for other in [&name[1..], &format!("{name}s")] {
                assert!(known(other).is_none_or(|known| bit != 1 << known as u32), "{other}");
            }
        }
        assert_eq!(seen, (1 << names.len()) - 1, "all that there are");
    }

    #[test]
    fn fields_are_found_and_counted() {
        let said = [("host", "a"), ("via", "x"), ("via", "yy"), ("te", ""), ("x-forwardee-prefix", "")];
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(name, HeaderValue::from_static(value));
        }
        let survey = Survey::of(&headers);
        assert!(survey.has(Known::Host) && survey.has(Known::Via) && survey.has(Known::Te));
        assert!(!survey.has(Known::ForProxies) && !survey.has(Known::Expect));
        assert!(survey.repeats(Known::Via) && !survey.repeats(Known::Host));
        assert!(survey.has_any(Set::of(&[(Known::Cookie, ()), (Known::Te, ())])));
        assert!(!survey.has_any(Set::of(&[(Known::Cookie, ())])));
        let written: usize = said.iter().map(|(name, value)| format!("{name}: {value}\r\n").len()).sum();
        assert_eq!(survey.bytes(), written);
        let (_, values) = Survey::with_values(&headers);
        assert_eq!((values.host.unwrap(), values.accept), (&HeaderValue::from_static("a"), None));
    }
}
