//! The names of the fields that most messages have, told apart without a look at each letter of each.

use http::{HeaderName, header};

use super::classes::lower_case;

/// A name in words, with zeros behind it.
type Words = [u64; 3];

macro_rules! known {
    ($($known:ident = $name:ident,)*) => {
        /// A name that is known here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Known {
            $($known,)*
        }

        impl Known {
            /// The name as the maps of fields have it.
            pub(super) fn name(self) -> HeaderName {
                match self {
                    $(Self::$known => header::$name,)*
                }
            }
        }
    };
}

known! {
    Accept = ACCEPT,
    AcceptEncoding = ACCEPT_ENCODING,
    AcceptLanguage = ACCEPT_LANGUAGE,
    AcceptRanges = ACCEPT_RANGES,
    Age = AGE,
    Authorization = AUTHORIZATION,
    CacheControl = CACHE_CONTROL,
    Connection = CONNECTION,
    ContentEncoding = CONTENT_ENCODING,
    ContentLength = CONTENT_LENGTH,
    ContentType = CONTENT_TYPE,
    Cookie = COOKIE,
    Date = DATE,
    Etag = ETAG,
    Expect = EXPECT,
    Expires = EXPIRES,
    Host = HOST,
    IfModifiedSince = IF_MODIFIED_SINCE,
    IfNoneMatch = IF_NONE_MATCH,
    LastModified = LAST_MODIFIED,
    Location = LOCATION,
    Origin = ORIGIN,
    Range = RANGE,
    Referer = REFERER,
    Server = SERVER,
    SetCookie = SET_COOKIE,
    TransferEncoding = TRANSFER_ENCODING,
    Upgrade = UPGRADE,
    UserAgent = USER_AGENT,
    Vary = VARY,
    Via = VIA,
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
            8 => among(name, [(b"location", Location)]),
            10 => among(
                name,
                [(b"connection", Connection), (b"user-agent", UserAgent), (b"set-cookie", SetCookie)],
            ),
            12 => among(name, [(b"content-type", ContentType)]),
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
            14 => among(name, [(b"content-length", ContentLength)]),
            15 => among(name, [(b"accept-encoding", AcceptEncoding), (b"accept-language", AcceptLanguage)]),
            16 => among(name, [(b"content-encoding", ContentEncoding)]),
            17 => among(
                name,
                [(b"transfer-encoding", TransferEncoding), (b"if-modified-since", IfModifiedSince)],
            ),
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
        let names = [
            header::ACCEPT,
            header::ACCEPT_ENCODING,
            header::ACCEPT_LANGUAGE,
            header::ACCEPT_RANGES,
            header::AGE,
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::CONNECTION,
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::COOKIE,
            header::DATE,
            header::ETAG,
            header::EXPECT,
            header::EXPIRES,
            header::HOST,
            header::IF_MODIFIED_SINCE,
            header::IF_NONE_MATCH,
            header::LAST_MODIFIED,
            header::LOCATION,
            header::ORIGIN,
            header::RANGE,
            header::REFERER,
            header::SERVER,
            header::SET_COOKIE,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::USER_AGENT,
            header::VARY,
            header::VIA,
        ];
        for name in names {
            for spelling in [name.as_str().to_owned(), name.as_str().to_ascii_uppercase()] {
                assert_eq!(
                    Known::of(spelling.as_bytes()).map(Known::name).as_ref(),
                    Some(&name),
                    "{spelling}"
                );
            }
        }
        for other in ["", "hos", "hosts", "h\u{f}st", "content_length", "content\rlength", "x-forwarded-for"]
        {
            assert_eq!(Known::of(other.as_bytes()), None, "{other}");
        }
    }
}
