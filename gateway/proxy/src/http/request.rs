//! What a request asks for: its target and authority, read strictly, so that what is matched here, what is sent on and
//! what the endpoint makes of it are the same.
//!
//! Malformed heads have been refused before (over HTTP/1.1 by [`crate::http1::request`], over HTTP/2 by [`crate::http2`]). What
//! is left, and what both have in common, is checked here; the table in the tests is the specification.

use std::net::Ipv6Addr;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use portolan_model::Role;

use super::survey::{Known, Survey};
use crate::config::LiveConfig;
use crate::error::{Failure, Reason};

/// Longest request target that is taken, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Who is asked: the authority of a request, checked and normalised.
#[derive(Debug)]
pub(crate) struct Target {
    /// As it is sent on in `Host`; none only from an HTTP/1.0 client.
    authority: Option<HeaderValue>,
    /// The length of the host in the authority, where that is in lower case already; else the host itself.
    host: Host,
    /// The port in the authority.
    pub(crate) port: Option<u16>,
    /// Whether the target came in absolute form: it was meant for the host that it names, with this gateway as the
    /// proxy on the way.
    pub(crate) is_absolute: bool,
}

#[derive(Debug)]
enum Host {
    AsSent(usize),
    Lowered(String),
}

/// What to do with a request whose head is sound.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Look for a route.
    Forward(Target),
    /// `OPTIONS *`, or a `Max-Forwards` that ends here: answer with what is known here.
    Answer,
}

impl Target {
    /// The host: lower case, without port and trailing dot.
    pub(crate) fn host(&self) -> Option<&str> {
        match &self.host {
            Host::Lowered(host) => Some(host),
            Host::AsSent(length) => self.authority.as_ref()?.to_str().ok()?.get(..*length),
        }
    }

    /// The authority as the client sent it.
    pub(crate) fn authority(&self) -> Option<&HeaderValue> {
        self.authority.as_ref()
    }
}

/// Checks the head of a request, with this `host` among its fields, and brings it into one form: an origin-form target,
/// and exactly one `Host` (or none, from an HTTP/1.0 client).
///
/// # Errors
/// Says what is wrong with the request.
pub(crate) fn normalise(
    parts: &mut Parts,
    host: Option<HeaderValue>,
    survey: &Survey,
    role: Role,
    live: &LiveConfig,
) -> Result<Asked, Failure> {
    check_head(parts, survey, live)?;
    once(survey, Known::Host, &header::HOST)?;
    let authority = authority(parts, host, role)?;
    let target = target(authority)?;
    if parts.uri.path() == "*" {
        return if parts.method == Method::OPTIONS {
            Ok(Asked::Answer)
        } else {
            Err(bad("the target * is for OPTIONS only"))
        };
    }
    if let Some(fault) = path_fault(parts.uri.path()) {
        return Err(bad(fault));
    }
    if ends_here(parts)? {
        return Ok(Asked::Answer);
    }
    Ok(Asked::Forward(target))
}

/// Whether the head of a request is as small as it must be; its bytes are counted as HTTP/1.1 would write them.
///
/// # Errors
/// It is not.
pub(crate) fn check_size(parts: &Parts, survey: &Survey, max_head_bytes: usize) -> Result<(), Failure> {
    let target = parts.uri.path_and_query().map_or(1, |target| target.as_str().len());
    let line = parts.method.as_str().len() + target + " HTTP/1.1\r\n".len() + 1;
    if line + survey.bytes() + "\r\n".len() > max_head_bytes {
        return Err(Failure::new(Reason::HeadersTooLarge, "the head of the request is too large"));
    }
    Ok(())
}

fn check_head(parts: &Parts, survey: &Survey, live: &LiveConfig) -> Result<(), Failure> {
    if parts.method == Method::CONNECT {
        return Err(Failure::new(Reason::MethodNotAllowed, "CONNECT is not served here"));
    }
    if parts.headers.len() > live.max_header_fields {
        return Err(Failure::new(Reason::HeadersTooLarge, "the request has too many header fields"));
    }
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return Err(Failure::new(Reason::TargetTooLong, "the request target is too long"));
    }
    once(survey, Known::TransferEncoding, &header::TRANSFER_ENCODING)?;
    if survey.has(Known::TransferEncoding)
        && let Some(coding) = parts.headers.get(header::TRANSFER_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        return Err(Failure::new(
            Reason::UnknownTransferCoding,
            "the only transfer coding served here is chunked",
        ));
    }
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if survey.has(Known::Expect) && !parts.headers.get_all(header::EXPECT).iter().all(is_known) {
        return Err(Failure::new(
            Reason::ExpectationFailed,
            "the only expectation served here is 100-continue",
        ));
    }
    if let Some(limit) = live.max_body_bytes
        && survey.has(Known::ContentLength)
        && content_length(&parts.headers).is_some_and(|length| length > limit)
    {
        return Err(body_too_large());
    }
    Ok(())
}

/// The request has more body than is allowed.
pub(crate) fn body_too_large() -> Failure {
    Failure::new(Reason::BodyTooLarge, "the request body is larger than allowed here")
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The one authority that the request names, as `Host` in the head; the target is in origin form afterwards.
/// Also, whether the target came in absolute form.
fn authority(
    parts: &mut Parts,
    host: Option<HeaderValue>,
    role: Role,
) -> Result<(Option<HeaderValue>, bool), Failure> {
    if parts.uri.authority().is_none() {
        return match host {
            None if parts.version != Version::HTTP_10 => Err(bad("the request names no host")),
            host => Ok((host, false)),
        };
    }
    let uri = std::mem::take(&mut parts.uri).into_parts();
    let named = uri.authority.ok_or_else(|| bad("the request target names no authority"))?;
    let is_absolute = parts.version != Version::HTTP_2;
    if is_absolute {
        absolute_form(role, uri.scheme.as_ref())?;
    } else if let Some(host) = &host
        && !host.as_bytes().eq_ignore_ascii_case(named.as_str().as_bytes())
    {
        return Err(bad(":authority and Host differ"));
    }
    parts.uri = origin_form(uri.path_and_query);
    let named = value_of(&named)?;
    // RFC 9112 section 3.2.2: the Host of an absolute-form request is ignored and made anew from the target.
    parts.headers.insert(header::HOST, named.clone());
    Ok((Some(named), is_absolute))
}

fn absolute_form(role: Role, scheme: Option<&Scheme>) -> Result<(), Failure> {
    match (role, scheme) {
        (_, None) => Err(bad("the request target is neither a path nor a URL")),
        (Role::Edge, Some(_)) => Err(Failure::new(
            Reason::TargetForm,
            "this listener is not a proxy for other hosts: send the path alone as the request target",
        )),
        (Role::Cluster, Some(scheme)) if *scheme == Scheme::HTTP => Ok(()),
        (Role::Cluster, Some(_)) => Err(bad("the only scheme served here is http")),
    }
}

fn origin_form(path_and_query: Option<PathAndQuery>) -> Uri {
    match path_and_query {
        Some(path_and_query) if path_and_query.as_str().starts_with('?') => {
            // An absolute form without a path, but with a query: the path is then "/".
            PathAndQuery::try_from(path_and_query.to_string()).map_or_else(|_| root(), Uri::from)
        }
        Some(path_and_query) => Uri::from(path_and_query),
        None => root(),
    }
}

fn root() -> Uri {
    Uri::from(PathAndQuery::from_static("/"))
}

fn value_of(authority: &Authority) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the authority is not valid"))
}

fn target((authority, is_absolute): (Option<HeaderValue>, bool)) -> Result<Target, Failure> {
    let Some(authority) = authority else {
        return Ok(Target { authority: None, host: Host::AsSent(0), port: None, is_absolute });
    };
    let (host, port) = split(authority.as_bytes()).ok_or_else(|| bad("the host is not valid"))?;
    Ok(Target { authority: Some(authority), host, port, is_absolute })
}

/// Reads `host[:port]`. `None` if it is not valid.
fn split(authority: &[u8]) -> Option<(Host, Option<u16>)> {
    let (host, rest) = if authority.starts_with(b"[") { address(authority)? } else { name(authority)? };
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok().filter(|port| *port != 0)?)
        }
        _ => return None,
    };
    Some((host, port))
}

/// Reads an IPv6 address in brackets; gives what follows it.
fn address(authority: &[u8]) -> Option<(Host, &[u8])> {
    let end = authority.iter().position(|byte| *byte == b']')?;
    let (host, rest) = authority.split_at(end + 1);
    let text = std::str::from_utf8(host).ok()?;
    text.get(1..end)?.parse::<Ipv6Addr>().ok()?;
    Some((host_of(text, text.bytes().any(|byte| byte.is_ascii_uppercase())), rest))
}

/// Reads a name in one walk; gives what follows it. Its trailing dot is no part of the host.
fn name(authority: &[u8]) -> Option<(Host, &[u8])> {
    let (mut length, mut seen) = (0, 0);
    // As if behind a dot: a name cannot begin with one, nor can two follow each other.
    let mut before = OF_NAME_DOT;
    for byte in authority {
        let class = OF_NAME[usize::from(*byte)];
        if class == 0 {
            break;
        }
        if class & before & OF_NAME_DOT != 0 {
            return None;
        }
        seen |= class;
        before = class;
        length += 1;
    }
    let (name, rest) = authority.split_at(length);
    let host = name.strip_suffix(b".").unwrap_or(name);
    if host.is_empty() || host.len() > 253 {
        return None;
    }
    let is_lower = seen & OF_NAME_UPPER == 0;
    let host =
        if is_lower { Host::AsSent(host.len()) } else { host_of(std::str::from_utf8(host).ok()?, true) };
    Some((host, rest))
}

fn host_of(text: &str, has_upper: bool) -> Host {
    if has_upper { Host::Lowered(text.to_ascii_lowercase()) } else { Host::AsSent(text.len()) }
}

const OF_NAME_PLAIN: u8 = 1;
const OF_NAME_UPPER: u8 = 2;
const OF_NAME_DOT: u8 = 4;

/// What each byte is in the name of a host; 0 where it has no place there.
const OF_NAME: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => OF_NAME_PLAIN,
            b'A'..=b'Z' => OF_NAME_UPPER,
            b'.' => OF_NAME_DOT,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// A field that may stand only once does.
fn once(survey: &Survey, known: Known, name: &header::HeaderName) -> Result<(), Failure> {
    if survey.repeats(known) {
        return Err(bad(format!("the request has more than one {name}")));
    }
    Ok(())
}

/// What is wrong with a path: it must start with a slash, and must mean the same to everyone who reads it. A dot
/// segment, an encoded slash or a backslash may be resolved by an endpoint after it was matched here, and so lead out
/// of the route; they are refused rather than rewritten, because a rewritten path breaks signatures.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("the path must start with a slash");
    }
    // Most paths have nothing of what may be a fault. That is told soonest without a branch for each byte.
    let may_be_fault = |byte: u8| !byte.is_ascii() | (byte == b'\\') | (byte == b'%') | (byte == b'.');
    let suspicious = path.bytes().fold(false, |suspicious, byte| suspicious | may_be_fault(byte));
    if suspicious { fault_of_characters(path) } else { None }
}

fn fault_of_characters(path: &str) -> Option<&'static str> {
    let mut suspicious = false;
    let mut previous = b'/';
    for byte in path.bytes() {
        match byte {
            b'\\' => return Some("the path has a backslash"),
            0x80.. => return Some("the path has a character that must be percent-encoded"),
            b'%' => suspicious = true,
            b'.' if previous == b'/' => suspicious = true,
            _ => {}
        }
        previous = byte;
    }
    if suspicious { encoded_fault(path) } else { None }
}

fn encoded_fault(path: &str) -> Option<&'static str> {
    for segment in path.split('/') {
        let mut plain = [0; 4];
        let mut length = 0;
        let mut bytes = segment.bytes();
        while let Some(byte) = bytes.next() {
            let decoded = if byte == b'%' {
                let Some(decoded) =
                    hex(bytes.next()).zip(hex(bytes.next())).map(|(high, low)| high << 4 | low)
                else {
                    return Some("the path has a percent sign that encodes nothing");
                };
                match decoded {
                    b'/' | b'\\' => return Some("the path has an encoded slash or backslash"),
                    0 => return Some("the path has an encoded NUL"),
                    other => other,
                }
            } else {
                byte
            };
            if let Some(slot) = plain.get_mut(length) {
                *slot = decoded;
                length += 1;
            }
        }
        // Some servers cut what stands behind a semicolon before they resolve dot segments.
        let bare = plain[..length].split(|byte| *byte == b';').next().unwrap_or_default();
        if bare == b"." || bare == b".." {
            return Some("the path has a dot segment");
        }
    }
    None
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Whether `Max-Forwards` says that this is the last to answer; counts it down otherwise (TRACE and OPTIONS only).
fn ends_here(parts: &mut Parts) -> Result<bool, Failure> {
    if parts.method != Method::TRACE && parts.method != Method::OPTIONS {
        return Ok(false);
    }
    let Some(value) = parts.headers.get(header::MAX_FORWARDS) else {
        return Ok(false);
    };
    let left: u32 = value
        .to_str()
        .ok()
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| bad("Max-Forwards is not a number"))?;
    if left == 0 {
        return Ok(true);
    }
    parts.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
    Ok(false)
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(Reason::BadRequest, message)
}

#[cfg(test)]
mod tests;
