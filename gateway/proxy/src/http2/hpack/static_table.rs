//! The fields that both sides know from the beginning (RFC 7541 appendix A).

use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::field::{Field, Name, Value};

/// How many there are. The first is number 1.
pub(super) const LENGTH: usize = 61;
/// Where `:status` stands, for a value that is not among them.
pub(super) const STATUS: usize = 8;

/// The field with this number.
pub(super) fn field(number: usize) -> Option<Field> {
    let name = name(number)?;
    let value = match number {
        2 => Value::Method(Method::GET),
        3 => Value::Method(Method::POST),
        4 => Value::Path(PathAndQuery::from_static("/")),
        5 => Value::Path(PathAndQuery::from_static("/index.html")),
        6 | 7 => Value::Scheme(true),
        16 => Value::Text(HeaderValue::from_static("gzip, deflate")),
        _ if name == Name::Unfit => Value::Unfit,
        _ => Value::Text(HeaderValue::from_static("")),
    };
    let length = name.length()
        + match number {
            2 => "GET".len(),
            3 | 6 => "POST".len(),
            4 => "/".len(),
            5 => "/index.html".len(),
            7 => "https".len(),
            16 => "gzip, deflate".len(),
            _ => 0,
        };
    Some(Field { name, value, length })
}

/// The name with this number.
pub(super) fn name(number: usize) -> Option<Name> {
    Some(match number {
        1 => Name::Authority,
        2 | 3 => Name::Method,
        4 | 5 => Name::Path,
        6 | 7 => Name::Scheme,
        // `:status` is of responses.
        8..=14 => Name::Unfit,
        _ => Name::from(regular(number)?),
    })
}

fn regular(number: usize) -> Option<HeaderName> {
    Some(match number {
        15 => header::ACCEPT_CHARSET,
        16 => header::ACCEPT_ENCODING,
        17 => header::ACCEPT_LANGUAGE,
        18 => header::ACCEPT_RANGES,
        19 => header::ACCEPT,
        20 => header::ACCESS_CONTROL_ALLOW_ORIGIN,
        21 => header::AGE,
        22 => header::ALLOW,
        23 => header::AUTHORIZATION,
        24 => header::CACHE_CONTROL,
        25 => header::CONTENT_DISPOSITION,
        26 => header::CONTENT_ENCODING,
        27 => header::CONTENT_LANGUAGE,
        28 => header::CONTENT_LENGTH,
        29 => header::CONTENT_LOCATION,
        30 => header::CONTENT_RANGE,
        31 => header::CONTENT_TYPE,
        32 => header::COOKIE,
        33 => header::DATE,
        34 => header::ETAG,
        35 => header::EXPECT,
        36 => header::EXPIRES,
        37 => header::FROM,
        38 => header::HOST,
        39 => header::IF_MATCH,
        40 => header::IF_MODIFIED_SINCE,
        41 => header::IF_NONE_MATCH,
        42 => header::IF_RANGE,
        43 => header::IF_UNMODIFIED_SINCE,
        44 => header::LAST_MODIFIED,
        45 => header::LINK,
        46 => header::LOCATION,
        47 => header::MAX_FORWARDS,
        48 => header::PROXY_AUTHENTICATE,
        49 => header::PROXY_AUTHORIZATION,
        50 => header::RANGE,
        51 => header::REFERER,
        52 => header::REFRESH,
        53 => header::RETRY_AFTER,
        54 => header::SERVER,
        55 => header::SET_COOKIE,
        56 => header::STRICT_TRANSPORT_SECURITY,
        57 => header::TRANSFER_ENCODING,
        58 => header::USER_AGENT,
        59 => header::VARY,
        60 => header::VIA,
        61 => header::WWW_AUTHENTICATE,
        _ => return None,
    })
}

/// Where a name of a response's field stands; 0, if it does not. For names that are asked rarely.
pub(super) fn number_of(name: &HeaderName) -> usize {
    (15..=LENGTH).find(|number| regular(*number).as_ref() == Some(name)).unwrap_or(0)
}

/// Where a status stands that is among them.
pub(super) fn status(status: u16) -> Option<u8> {
    Some(match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand() {
        for number in 15..=LENGTH {
            let Some(Name::Regular(name, _)) = name(number) else { panic!("{number} is no field") };
            assert_eq!(number_of(&name), number);
        }
        assert_eq!(number_of(&HeaderName::from_static("x-a")), 0);
        assert!(field(0).is_none() && field(LENGTH + 1).is_none());
        assert_eq!(field(7).unwrap().length, ":schemehttps".len());
    }
}
