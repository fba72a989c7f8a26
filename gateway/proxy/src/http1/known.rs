//! The names of the fields that most messages have, told apart without a look at each letter of each.

use http::{HeaderName, header};

use super::classes::lower_case;

/// A name in words, with zeros behind it.
type Words = [u64; 3];

macro_rules! known {
    ($($known:ident = $name:expr,)*) => {
        /// A name that is known here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Known {
            $($known,)*
        }

        impl Known {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$known,)*];

            /// The name as the maps of fields have it.
            pub(super) fn name(self) -> HeaderName {
                match self {
                    $(Self::$known => const { $name },)*
                }
            }
        }
    };
}

known! {
    Accept = header::ACCEPT,
    AcceptEncoding = header::ACCEPT_ENCODING,
    AcceptLanguage = header::ACCEPT_LANGUAGE,
    AcceptRanges = header::ACCEPT_RANGES,
    Age = header::AGE,
    Authorization = header::AUTHORIZATION,
    CacheControl = header::CACHE_CONTROL,
    Connection = header::CONNECTION,
    ContentEncoding = header::CONTENT_ENCODING,
    ContentLength = header::CONTENT_LENGTH,
    ContentType = header::CONTENT_TYPE,
    Cookie = header::COOKIE,
    Date = header::DATE,
    Etag = header::ETAG,
    Expect = header::EXPECT,
    Expires = header::EXPIRES,
    Host = header::HOST,
    IfModifiedSince = header::IF_MODIFIED_SINCE,
    IfNoneMatch = header::IF_NONE_MATCH,
    LastModified = header::LAST_MODIFIED,
    Location = header::LOCATION,
    Origin = header::ORIGIN,
    Range = header::RANGE,
    Referer = header::REFERER,
    Server = header::SERVER,
    SetCookie = header::SET_COOKIE,
    TransferEncoding = header::TRANSFER_ENCODING,
    Upgrade = header::UPGRADE,
    UserAgent = header::USER_AGENT,
    Vary = header::VARY,
    Via = header::VIA,
    // What browsers and other gateways send, of which the `http` crate knows nothing.
    Priority = HeaderName::from_static("priority"),
    SecChUa = HeaderName::from_static("sec-ch-ua"),
    SecChUaMobile = HeaderName::from_static("sec-ch-ua-mobile"),
    SecChUaPlatform = HeaderName::from_static("sec-ch-ua-platform"),
    SecFetchDest = HeaderName::from_static("sec-fetch-dest"),
    SecFetchMode = HeaderName::from_static("sec-fetch-mode"),
    SecFetchSite = HeaderName::from_static("sec-fetch-site"),
    Traceparent = HeaderName::from_static("traceparent"),
    XForwardedFor = HeaderName::from_static("x-forwarded-for"),
    XForwardedHost = HeaderName::from_static("x-forwarded-host"),
    XForwardedProto = HeaderName::from_static("x-forwarded-proto"),
    XRequestId = HeaderName::from_static("x-request-id"),
}

impl Known {
    /// What is known of this name, in letters of any case.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        use Known::*;
        match name.len() {
            3 => among(name, [(b"via", Via), (b"age", Age)]),
            4 => among(name, [(b"host", Host), (b"date", Date), (b"etag", Etag), (b"vary", Vary)]),
            5 => among(name, [(b"range", Range)]),
            6 => among(
                name,
                [
                    (b"accept", Accept),
                    (b"cookie", Cookie),
                    (b"server", Server),
                    (b"origin", Origin),
                    (b"expect", Expect),
                ],
            ),
            7 => among(name, [(b"referer", Referer), (b"upgrade", Upgrade), (b"expires", Expires)]),
            8 => among(name, [(b"location", Location), (b"priority", Priority)]),
            9 => among(name, [(b"sec-ch-ua", SecChUa)]),
            10 => among(
                name,
                [(b"connection", Connection), (b"user-agent", UserAgent), (b"set-cookie", SetCookie)],
            ),
            11 => among(name, [(b"traceparent", Traceparent)]),
            12 => among(name, [(b"content-type", ContentType), (b"x-request-id", XRequestId)]),
            13 => among(
                name,
                [
                    (b"cache-control", CacheControl),
                    (b"authorization", Authorization),
                    (b"last-modified", LastModified),
                    (b"if-none-match", IfNoneMatch),
                    (b"accept-ranges", AcceptRanges),
                ],
            ),
            14 => among(
                name,
                [
                    (b"content-length", ContentLength),
                    (b"sec-fetch-dest", SecFetchDest),
                    (b"sec-fetch-mode", SecFetchMode),
                    (b"sec-fetch-site", SecFetchSite),
                ],
            ),
            15 => among(
                name,
                [
                    (b"accept-encoding", AcceptEncoding),
                    (b"accept-language", AcceptLanguage),
                    (b"x-forwarded-for", XForwardedFor),
                ],
            ),
            16 => among(
                name,
                [
                    (b"content-encoding", ContentEncoding),
                    (b"sec-ch-ua-mobile", SecChUaMobile),
                    (b"x-forwarded-host", XForwardedHost),
                ],
            ),
            17 => among(
                name,
                [
                    (b"transfer-encoding", TransferEncoding),
                    (b"if-modified-since", IfModifiedSince),
                    (b"x-forwarded-proto", XForwardedProto),
                ],
            ),
            18 => among(name, [(b"sec-ch-ua-platform", SecChUaPlatform)]),
            _ => None,
        }
    }
}

/// Which of some names of one length it is.
#[inline]
fn among<const LENGTH: usize, const NAMES: usize>(
    name: &[u8],
    names: [(&[u8; LENGTH], Known); NAMES],
) -> Option<Known> {
    let name = words::<LENGTH>(name.try_into().ok()?).map(lower_case);
    let is = |known: &[u8; LENGTH]| name.iter().zip(words(known)).all(|(word, known)| *word == known);
    names.iter().find(|(known, _)| is(known)).map(|(_, known)| *known)
}

/// The compiler knows the length, so that these are a few loads, and those of what is constant are none.
#[inline]
fn words<const LENGTH: usize>(name: &[u8; LENGTH]) -> Words {
    let mut words = [[0; 8]; 3];
    words.as_flattened_mut()[..LENGTH].copy_from_slice(name);
    words.map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case() {
        for known in Known::ALL {
            let name = known.name();
            for spelling in [name.as_str().to_owned(), name.as_str().to_ascii_uppercase()] {
                assert_eq!(
                    Known::of(spelling.as_bytes()).map(Known::name).as_ref(),
                    Some(&name),
                    "{spelling}"
                );
            }
        }
        for known in Known::ALL {
            let mut name = known.name().as_str().as_bytes().to_vec();
            for place in 0..name.len() {
                let letter = name[place];
                for byte in 0..=u8::MAX {
                    name[place] = byte;
                    let is = |known: &&Known| name.eq_ignore_ascii_case(known.name().as_str().as_bytes());
                    let expected = Known::ALL.iter().find(is).copied();
                    assert_eq!(Known::of(&name), expected, "{}", name.escape_ascii());
                }
                name[place] = letter;
            }
        }
        for other in ["", "hos", "hosts", "h\u{f}st", "content_length", "content\rlength", "x-forwarded-by"] {
            assert_eq!(Known::of(other.as_bytes()), None, "{other}");
        }
    }
}
