//! The fields of a request's head, read once and kept as what they are.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};

use crate::http1::classes::is_target;

/// One field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Name,
    pub(crate) value: Value,
    /// How long name and value are together, in bytes.
    pub(crate) length: usize,
}

/// The name of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Authority,
    Method,
    Path,
    Scheme,
    Regular(HeaderName, Meaning),
    /// No name that a request's field may have.
    Unfit,
}

/// What a field of this name means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Plain,
    ContentLength,
    Host,
    /// It is for one connection of HTTP/1.1, and has no place here (RFC 9113 section 8.2.2).
    OfConnection,
    Te,
}

/// The value of a field.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Method(Method),
    Path(PathAndQuery),
    /// Whether it is a scheme of the web.
    Scheme(bool),
    Text(HeaderValue),
    /// No value that a field of this name may have.
    Unfit,
}

impl Name {
    /// Reads a name that was sent in full.
    pub(super) fn read(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return match name {
                b":authority" => Self::Authority,
                b":method" => Self::Method,
                b":path" => Self::Path,
                b":scheme" => Self::Scheme,
                _ => Self::Unfit,
            };
        }
        HeaderName::from_lowercase(name).map_or(Self::Unfit, Self::from)
    }

    /// How long it is, in bytes.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Authority => ":authority".len(),
            Self::Method | Self::Scheme => ":method".len(),
            Self::Path => ":path".len(),
            Self::Regular(name, _) => name.as_str().len(),
            // Not exactly, but it is refused anyway.
            Self::Unfit => 0,
        }
    }
}

impl From<HeaderName> for Name {
    fn from(name: HeaderName) -> Self {
        let text = name.as_str();
        let meaning = match text.len() {
            2 if text == "te" => Meaning::Te,
            4 if text == "host" => Meaning::Host,
            7 if text == "upgrade" => Meaning::OfConnection,
            10 if text == "connection" || text == "keep-alive" => Meaning::OfConnection,
            14 if name == header::CONTENT_LENGTH => Meaning::ContentLength,
            16 if text == "proxy-connection" => Meaning::OfConnection,
            17 if text == "transfer-encoding" => Meaning::OfConnection,
            _ => Meaning::Plain,
        };
        Self::Regular(name, meaning)
    }
}

impl Value {
    /// Reads the value of a field of this name; `copy` makes memory of it that can be shared.
    pub(super) fn read(name: &Name, value: &[u8], copy: impl FnOnce(&[u8]) -> Bytes) -> Self {
        match name {
            Name::Method => Method::from_bytes(value).map_or(Self::Unfit, Self::Method),
            Name::Path if is_path(value) => {
                PathAndQuery::from_maybe_shared(copy(value)).map_or(Self::Unfit, Self::Path)
            }
            Name::Path => Self::Unfit,
            Name::Scheme => {
                Self::Scheme(value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https"))
            }
            Name::Authority | Name::Regular(..) if is_text(value) => {
                HeaderValue::from_maybe_shared(copy(value)).map_or(Self::Unfit, Self::Text)
            }
            Name::Authority | Name::Regular(..) => Self::Unfit,
            Name::Unfit => Self::Unfit,
        }
    }
}

/// Whether it is a path, with a query or without, or the `*` of OPTIONS.
fn is_path(value: &[u8]) -> bool {
    (value.first() == Some(&b'/') || value == b"*") && is_target(value)
}

/// RFC 9113 section 8.2.1: no white space stands around a value. Control characters are looked for behind this.
fn is_text(value: &[u8]) -> bool {
    let is_white = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    !is_white(value.first()) && !is_white(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_tokens() {
        assert_eq!(Name::read(b":path"), Name::Path);
        assert_eq!(Name::read(b"te"), Name::Regular(header::TE, Meaning::Te));
        assert_eq!(Name::read(b"x-a"), Name::Regular(HeaderName::from_static("x-a"), Meaning::Plain));
        for unfit in
            [&b""[..], b"X-A", b"Te", b"a b", b"a:", b":a", b":status", b":protocol", b"a\r\n", b"\xff"]
        {
            assert_eq!(Name::read(unfit), Name::Unfit, "{unfit:?}");
        }
    }

    #[test]
    fn values_are_what_their_names_say() {
        let is_fit = |name: &[u8], value: &[u8]| {
            !matches!(Value::read(&Name::read(name), value, Bytes::copy_from_slice), Value::Unfit)
        };
        for (name, value) in [
            (&b":path"[..], &b"/a?b[]=%20"[..]),
            (b":path", b"*"),
            (b":method", b"GET"),
            (b":method", b"PROPFIND"),
            (b":scheme", b"ftp"),
            (b"a", b"b\tc d"),
            (b"a", b""),
            (b"a", b"\xe9"),
        ] {
            assert!(is_fit(name, value), "{name:?} {value:?}");
        }
        for (name, value) in [
            (&b":path"[..], &b""[..]),
            (b":path", b"a"),
            (b":path", b"http://a/"),
            (b":path", b"/a b"),
            (b":path", b"/a#b"),
            (b":path", b"/a\r\nb: c"),
            (b":path", b"/\0"),
            (b":method", b"GET / HTTP/1.1\r\nX:"),
            (b":method", b"GET?"),
            (b":method", b""),
            (b"a", b" b"),
            (b"a", b"b\t"),
            (b"a", b"b\rc"),
            (b"a", b"b\nc"),
            (b"a", b"b\0c"),
            (b":a", b"b"),
        ] {
            assert!(!is_fit(name, value), "{name:?} {value:?}");
        }
    }
}
