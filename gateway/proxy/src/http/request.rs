//! What a request asks for: its target and authority, read strictly, so that what is matched here, what is sent on and
//! what the endpoint makes of it are the same.
//!
//! hyper has refused malformed heads before (bad characters, several or unequal `Content-Length`, a last transfer
//! coding that is not `chunked`; with both `Transfer-Encoding` and `Content-Length` it drops the latter and closes).
//! What is left is checked here; the table in the tests is the specification.

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

/// Checks the head of a request and brings it into one form: an origin-form target, and exactly one `Host` (or none,
/// from an HTTP/1.0 client).
///
/// # Errors
/// Says what is wrong with the request.
pub(crate) fn normalise(
    parts: &mut Parts,
    survey: &Survey,
    role: Role,
    live: &LiveConfig,
) -> Result<Asked, Failure> {
    check_head(parts, survey, live)?;
    let authority = authority(parts, survey, role)?;
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
    if let Some(coding) = single(&parts.headers, survey, Known::TransferEncoding, &header::TRANSFER_ENCODING)?
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
fn authority(parts: &mut Parts, survey: &Survey, role: Role) -> Result<(Option<HeaderValue>, bool), Failure> {
    let host = single(&parts.headers, survey, Known::Host, &header::HOST)?.cloned();
    if parts.uri.authority().is_none() {
        return match host {
            None if parts.version == Version::HTTP_11 => Err(bad("the request has no Host")),
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
    let text = authority.to_str().map_err(|_| bad("the host is not valid"))?;
    let (host, port) = split(text).ok_or_else(|| bad("the host is not valid"))?;
    let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Host::Lowered(host.to_ascii_lowercase())
    } else {
        Host::AsSent(host.len())
    };
    Ok(Target { authority: Some(authority), host, port, is_absolute })
}

/// Splits `host[:port]`, the host without its trailing dot. `None` if it is not valid.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        host.get(1..host.len() - 1)?.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, rest) = authority.split_at(end);
        (name(host)?, rest)
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
    };
    Some((host, port))
}

fn name(host: &str) -> Option<&str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let sound = !host.is_empty()
        && host.len() <= 253
        && !host.starts_with('.')
        && !host.contains("..")
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    sound.then_some(host)
}

/// The value of a field that may stand only once.
fn single<'a>(
    headers: &'a HeaderMap,
    survey: &Survey,
    known: Known,
    name: &header::HeaderName,
) -> Result<Option<&'a HeaderValue>, Failure> {
    if survey.repeats(known) {
        return Err(bad(format!("the request has more than one {name}")));
    }
    Ok(if survey.has(known) { headers.get(name) } else { None })
}

/// What is wrong with a path: it must start with a slash, and must mean the same to everyone who reads it. A dot
/// segment, an encoded slash or a backslash may be resolved by an endpoint after it was matched here, and so lead out
/// of the route; they are refused rather than rewritten, because a rewritten path breaks signatures.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("the path must start with a slash");
    }
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
