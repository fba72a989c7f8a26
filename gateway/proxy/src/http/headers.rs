//! Header fields on their way through: what ends here, what is added, whom to believe.
//!
//! Order matters: the fields that a client lists in `Connection` go first, and only then are our own written, so that
//! a client cannot make us strip what we vouch for.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use portolan_model::Protocol;

use super::outbound::{Added, Outbound};
use super::request::Target;
use super::request_id::RequestId;
use super::strangers::is_for_proxies;
use super::survey::{Known, Set, Survey};
use super::trailers;
use crate::config::LiveConfig;

/// The client's address as earlier proxies saw it, nearest last.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the client used.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The authority that the client asked.
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The port that the client asked.
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The part of the path that was taken off before the endpoint sees it.
pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What ties together the log lines of one request.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What is known of one client connection and goes into the requests that come over it, formatted once.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The address of the other end.
    pub(crate) address: IpAddr,
    /// Whether what it says of others is believed.
    pub(crate) trusted: bool,
    address_value: HeaderValue,
    port_value: HeaderValue,
    protocol: Protocol,
    told: RefCell<Told>,
}

/// What endpoints were told of this client: most clients ask the same authority again and again.
#[derive(Debug, Default)]
enum Told {
    #[default]
    Nothing,
    /// One request; that does not make it worth keeping.
    Once,
    /// The last lines, and the authority that they name.
    Lines(Option<HeaderValue>, Rc<[u8]>),
}

/// How this gateway signs what it passes on, formatted once.
#[derive(Debug)]
pub(crate) struct Signature {
    pseudonym: String,
    via_10: HeaderValue,
    via_11: HeaderValue,
    via_2: HeaderValue,
}

impl Peer {
    /// The peer at this address, on a listener of this protocol at this port.
    pub(crate) fn new(address: IpAddr, protocol: Protocol, port: u16, live: &LiveConfig) -> Self {
        // An IPv4 client of a socket for both families is the same client.
        let address = address.to_canonical();
        Self {
            address,
            trusted: is_trusted(address, live),
            address_value: HeaderValue::try_from(address.to_string())
                .expect("an address is a valid field value"),
            port_value: HeaderValue::from(port),
            protocol,
            told: RefCell::default(),
        }
    }

    /// What an endpoint is told of this peer's request to this target, where nobody before is believed.
    fn lines(&self, target: &Target) -> Rc<[u8]> {
        let mut told = self.told.borrow_mut();
        if let Told::Lines(authority, lines) = &*told
            && authority.as_ref() == target.authority()
        {
            return Rc::clone(lines);
        }
        let lines = forwarded_lines(self, target);
        // A copy, since the request's own would hold on to the buffer that the connection reads into.
        let copy = |authority: &HeaderValue| HeaderValue::from_bytes(authority.as_bytes()).ok();
        *told = match &*told {
            Told::Nothing => Told::Once,
            _ => Told::Lines(target.authority().and_then(copy), Rc::clone(&lines)),
        };
        lines
    }

    /// The nearest address in the chain of proxies that is not one of ours to trust.
    pub(crate) fn client(&self, headers: &HeaderMap, live: &LiveConfig) -> IpAddr {
        if !self.trusted {
            return self.address;
        }
        let mut client = self.address;
        let values: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        let hops =
            values.iter().rev().filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
        for hop in hops {
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
            if !is_trusted(client, live) {
                break;
            }
        }
        client
    }
}

fn is_trusted(address: IpAddr, live: &LiveConfig) -> bool {
    live.trusted_proxies.iter().any(|network| network.contains(&address))
}

impl Signature {
    /// The signature of the gateway with this pseudonym.
    ///
    /// # Errors
    /// If the pseudonym is not a token.
    pub(crate) fn new(pseudonym: &str) -> Result<Self, header::InvalidHeaderValue> {
        let via = |version| HeaderValue::try_from(format!("{version} {pseudonym}"));
        Ok(Self {
            pseudonym: pseudonym.to_owned(),
            via_10: via("1.0")?,
            via_11: via("1.1")?,
            via_2: via("2.0")?,
        })
    }

    /// Whether a message has passed here before.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::VIA)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|hop| hop.split_ascii_whitespace().nth(1) == Some(&self.pseudonym))
    }

    /// The signature under a message that was received in this version.
    fn of(&self, version: Version) -> HeaderValue {
        let via = match version {
            Version::HTTP_2 => &self.via_2,
            Version::HTTP_10 => &self.via_10,
            _ => &self.via_11,
        };
        via.clone()
    }
}

/// Makes the head of a client's request one for an endpoint.
pub(crate) fn prepare_request(
    request: &mut Outbound,
    survey: &Survey,
    has_body: bool,
    peer: &Peer,
    target: &Target,
    signature: Option<&Signature>,
) {
    let parts = &mut request.parts;
    let takes_trailers = survey.has(Known::Te) && accepts_trailers(&parts.headers);
    remove_hop_by_hop(&mut parts.headers, survey);
    if survey.has(Known::Expect) {
        // Answered here: 100 (Continue) is sent when the body is first read, which is after an endpoint was found.
        parts.headers.remove(header::EXPECT);
    }
    if takes_trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if parts.version == Version::HTTP_2 && survey.repeats(Known::Cookie) {
        join_cookies(&mut parts.headers);
    }
    if has_body && !survey.has(Known::ContentLength) {
        // Said outright, whatever the method: the connection carries on where the body is said to end.
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if !peer.trusted && survey.has(Known::ForProxies) {
        remove_each(&mut parts.headers, |name| is_for_proxies(name.as_str()));
    }
    if survey.has(Known::Proxy) {
        // CGI programs take it for the proxy that they are to use themselves.
        parts.headers.remove("proxy");
    }
    if survey.has(Known::Trailer) {
        trailers::announce_fit(&mut parts.headers);
    }
    let via = signature.map(|signature| signature.of(parts.version));
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    let names_host = target.authority().is_some();
    if peer.trusted {
        add_to_forwarded(headers, peer, target);
        let request_id = headers.remove(X_REQUEST_ID).map_or_else(RequestId::new, RequestId::Given);
        request.added =
            Added { lines: None, via, request_id: Some(request_id), names_host, follows_proxy: true };
        return;
    }
    VOUCHED_FOR.remove_from(headers, survey);
    let (lines, request_id) = (Some(peer.lines(target)), Some(RequestId::new()));
    request.added = Added { lines, via, request_id, names_host, follows_proxy: false };
}

/// Makes the head of an endpoint's response one for the client.
pub(crate) fn prepare_response(
    parts: &mut http::response::Parts,
    survey: &Survey,
    signature: Option<&Signature>,
) {
    remove_hop_by_hop(&mut parts.headers, survey);
    if survey.has(Known::Trailer) {
        trailers::announce_fit(&mut parts.headers);
    }
    if let Some(signature) = signature {
        parts.headers.append(header::VIA, signature.of(parts.version));
    }
    parts.version = Version::HTTP_11;
}

/// Removes what is meant for this hop alone, and whatever `Connection` says is.
fn remove_hop_by_hop(headers: &mut HeaderMap, survey: &Survey) {
    if survey.has(Known::Connection) {
        for name in listed_in_connection(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    HOP_BY_HOP.remove_from(headers, survey);
}

/// Fields that are removed together. Most heads have none of them, which is told by one look at the survey.
struct Fields<const N: usize> {
    any: Set,
    each: [(Known, HeaderName); N],
}

impl<const N: usize> Fields<N> {
    const fn new(each: [(Known, HeaderName); N]) -> Self {
        Self { any: Set::of(&each), each }
    }

    fn remove_from(&self, headers: &mut HeaderMap, survey: &Survey) {
        if !survey.has_any(self.any) {
            return;
        }
        for (known, name) in &self.each {
            if survey.has(*known) {
                headers.remove(name);
            }
        }
    }
}

static HOP_BY_HOP: Fields<8> = Fields::new([
    (Known::KeepAlive, KEEP_ALIVE),
    (Known::ProxyConnection, PROXY_CONNECTION),
    (Known::Http2Settings, HTTP2_SETTINGS),
    (Known::Te, header::TE),
    (Known::TransferEncoding, header::TRANSFER_ENCODING),
    (Known::Upgrade, header::UPGRADE),
    (Known::ProxyAuthorization, header::PROXY_AUTHORIZATION),
    (Known::ProxyAuthenticate, header::PROXY_AUTHENTICATE),
]);

/// Takes out of trailers what has no place there: what is meant for one hop, and what this gateway vouches for in the
/// head, where an endpoint might join the two.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let survey = Survey::of(trailers);
    remove_hop_by_hop(trailers, &survey);
    remove_each(trailers, |name| !trailers::is_fit(name));
}

fn remove_each(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<_> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn listed_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        // Most say this alone; the field of this name goes anyway.
        .filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
        // Octets, because one that is no text must not hide the names beside it.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // Framing and authority are no client's to take away.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect()
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// RFC 9113 section 8.2.3: HTTP/2 may send a cookie in pieces, HTTP/1.1 must not.
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// What this gateway tells of the client by itself: from anyone who is not trusted it is no news.
static VOUCHED_FOR: Fields<6> = Fields::new([
    (Known::Forwarded, header::FORWARDED),
    (Known::XForwardedFor, X_FORWARDED_FOR),
    (Known::XForwardedHost, X_FORWARDED_HOST),
    (Known::XForwardedPort, X_FORWARDED_PORT),
    (Known::XForwardedProto, X_FORWARDED_PROTO),
    (Known::XRequestId, X_REQUEST_ID),
]);

/// Tells the endpoint who asked for what, after what a trusted peer said of it.
fn add_to_forwarded(headers: &mut HeaderMap, peer: &Peer, target: &Target) {
    append_to_list(headers, X_FORWARDED_FOR, &peer.address_value);
    append_to_list(headers, header::FORWARDED, &forwarded_element(peer, target));
    let mut tell = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    tell(X_FORWARDED_PROTO, HeaderValue::from_static(peer.protocol.scheme()));
    tell(X_FORWARDED_PORT, port(peer, target));
    if let Some(authority) = target.authority() {
        tell(X_FORWARDED_HOST, authority.clone());
    }
}

/// Tells the endpoint who asked for what, as whole lines.
fn forwarded_lines(peer: &Peer, target: &Target) -> Rc<[u8]> {
    let (element, port) = (forwarded_element(peer, target), port(peer, target));
    let fields = [
        (X_FORWARDED_FOR, Some(peer.address_value.as_bytes())),
        (header::FORWARDED, Some(element.as_bytes())),
        (X_FORWARDED_PROTO, Some(peer.protocol.scheme().as_bytes())),
        (X_FORWARDED_HOST, target.authority().map(HeaderValue::as_bytes)),
        (X_FORWARDED_PORT, Some(port.as_bytes())),
    ];
    let mut lines = Vec::new();
    for (name, value) in fields {
        if let Some(value) = value {
            for piece in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
                lines.extend_from_slice(piece);
            }
        }
    }
    lines.into()
}

/// The port that the client asked.
fn port(peer: &Peer, target: &Target) -> HeaderValue {
    target.port.map_or_else(|| peer.port_value.clone(), HeaderValue::from)
}

/// One element of `Forwarded` (RFC 7239); an IPv6 address and a host with a port are quoted.
fn forwarded_element(peer: &Peer, target: &Target) -> HeaderValue {
    let address = peer.address_value.to_str().unwrap_or_default();
    let (before, after) = if peer.address.is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
    let authority = target.authority().and_then(|authority| authority.to_str().ok());
    let quote = if authority.is_some_and(|authority| authority.contains(':')) { "\"" } else { "" };
    let scheme = peer.protocol.scheme();
    let element = match authority {
        Some(authority) => {
            [before, address, after, ";host=", quote, authority, quote, ";proto=", scheme].concat()
        }
        None => [before, address, after, ";proto=", scheme].concat(),
    };
    HeaderValue::try_from(element).expect("an address and a checked authority make a valid field value")
}

fn append_to_list(headers: &mut HeaderMap, name: HeaderName, last: &HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last.as_bytes());
    let value = HeaderValue::from_bytes(&list).unwrap_or_else(|_| last.clone());
    headers.insert(name, value);
}

#[cfg(test)]
mod tests;
