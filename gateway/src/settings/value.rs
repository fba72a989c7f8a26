//! The values that settings take, each read from the text that a user wrote. The same readers serve flags, environment
//! and file, so that a mistake is described in the same words wherever it was made.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use portolan_model::Balancing;

/// One required value.
pub(crate) fn one<T: FromStr<Err: ToString>>(texts: &[String]) -> Result<T, String> {
    match texts {
        [text] => text.parse().map_err(|error: T::Err| error.to_string()),
        _ => Err(format!("one value is expected, not {}", texts.len())),
    }
}

/// One value or none; an empty text is none.
pub(crate) fn optional<T: FromStr<Err: ToString>>(texts: &[String]) -> Result<Option<T>, String> {
    match texts {
        [] => Ok(None),
        [text] if text.is_empty() => Ok(None),
        texts => one(texts).map(Some),
    }
}

/// Several values; an empty text is none.
pub(crate) fn list<T: FromStr<Err: ToString>>(texts: &[String]) -> Result<Vec<T>, String> {
    let read = |text: &String| {
        text.trim().parse().map_err(|error: T::Err| format!("{text:?}: {}", error.to_string()))
    };
    texts.iter().filter(|text| !text.is_empty()).map(read).collect()
}

/// An address with its port.
pub(crate) fn socket(texts: &[String]) -> Result<SocketAddr, String> {
    one::<String>(texts)?
        .parse()
        .map_err(|_| "an address and a port such as 0.0.0.0:8080 is expected".to_owned())
}

/// Several addresses with their ports.
pub(crate) fn socket_list(texts: &[String]) -> Result<Vec<SocketAddr>, String> {
    texts.iter().filter(|text| !text.is_empty()).map(|text| socket(&[text.trim().to_owned()])).collect()
}

/// `true` or `false`.
pub(crate) fn switch(texts: &[String]) -> Result<bool, String> {
    match texts {
        [text] if text == "true" => Ok(true),
        [text] if text == "false" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

/// A time longer than nothing.
pub(crate) fn duration(texts: &[String]) -> Result<Duration, String> {
    match duration_or_zero(texts)? {
        Duration::ZERO => Err("a time longer than 0 is expected".to_owned()),
        time => Ok(time),
    }
}

/// A time, which may be nothing.
pub(crate) fn duration_or_zero(texts: &[String]) -> Result<Duration, String> {
    let text: String = one(texts)?;
    humantime::parse_duration(&text)
        .map_err(|error| format!("a time with its unit is expected, such as 500ms, 10s or 5m ({error})"))
}

/// A time longer than nothing, or `off`.
pub(crate) fn duration_or_off(texts: &[String]) -> Result<Option<Duration>, String> {
    match texts {
        [text] if text == "off" => Ok(None),
        texts => duration(texts).map(Some),
    }
}

/// A number of retries: more than a few would multiply an outage.
pub(crate) fn retries(texts: &[String]) -> Result<u32, String> {
    match one(texts) {
        Ok(retries @ 0..=2) => Ok(retries),
        _ => Err("a number from 0 to 2 is expected: more retries would multiply an outage".to_owned()),
    }
}

/// A number, which may be 0.
pub(crate) fn number(texts: &[String]) -> Result<u32, String> {
    one(texts).map_err(|_: String| "a number is expected, 0 or greater".to_owned())
}

/// A number greater than 0.
pub(crate) fn positive(texts: &[String]) -> Result<u32, String> {
    match one(texts) {
        Ok(number @ 1..) => Ok(number),
        _ => Err("a number greater than 0 is expected".to_owned()),
    }
}

/// A number from 1 to 100.
pub(crate) fn up_to_100(texts: &[String]) -> Result<u32, String> {
    match one(texts) {
        Ok(number @ 1..=100) => Ok(number),
        _ => Err("a number from 1 to 100 is expected".to_owned()),
    }
}

/// A size of a message's head: too small would refuse ordinary requests, too large would invite abuse.
pub(crate) fn head_bytes(texts: &[String]) -> Result<u32, String> {
    match one(texts) {
        Ok(bytes @ 8_192..=1_048_576) => Ok(bytes),
        _ => Err("a size from 8192 to 1048576 bytes is expected".to_owned()),
    }
}

/// A number greater than 0, or `off`.
pub(crate) fn number_or_off(texts: &[String]) -> Result<Option<u64>, String> {
    match texts {
        [text] if text == "off" => Ok(None),
        texts => match one(texts) {
            Ok(number @ 1..) => Ok(Some(number)),
            _ => Err("a number greater than 0, or off, is expected".to_owned()),
        },
    }
}

/// The name of a way to balance.
pub(crate) fn balancing(texts: &[String]) -> Result<Balancing, String> {
    match one::<String>(texts)?.as_str() {
        "round-robin" => Ok(Balancing::RoundRobin),
        "least-connection" => Ok(Balancing::LeastConnection),
        _ => Err("round-robin or least-connection is expected".to_owned()),
    }
}

/// Networks in CIDR form, or single addresses.
pub(crate) fn networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let read = |text: &String| {
        let text = text.trim();
        text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            format!("{text:?}: a network such as 10.0.0.0/8 or an address such as 10.0.0.1 is expected")
        })
    };
    texts.iter().filter(|text| !text.is_empty()).map(read).collect()
}

/// Whether the reader of this name takes several values.
pub(super) const fn is_list(reader: &str) -> bool {
    ends_with(reader, b"list") || ends_with(reader, b"networks")
}

/// Whether the reader of this name is for a switch.
pub(super) const fn is_switch(reader: &str) -> bool {
    ends_with(reader, b"switch")
}

const fn ends_with(text: &str, end: &[u8]) -> bool {
    let text = text.as_bytes();
    if text.len() < end.len() {
        return false;
    }
    let mut i = 0;
    while i < end.len() {
        if text[text.len() - end.len() + i] != end[i] {
            return false;
        }
        i += 1;
    }
    true
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $( $(#[$variant_meta])* $variant ),+ }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(format!("one of {} is expected", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words! {
    /// The form of the log.
    LogFormat {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
    }
}

words! {
    /// Which requests are written to the access log.
    AccessLog {
        /// None.
        Off = "off",
        /// Those that failed.
        Errors = "errors",
        /// Those that failed, and every hundredth.
        Sampled = "sampled",
        /// All.
        All = "all",
    }
}

words! {
    /// Which Services are routed to.
    Expose {
        /// Those that ask for it.
        Annotated = "annotated",
        /// All but the Kubernetes cluster's and Portolan's own.
        All = "all",
    }
}

/// A number of worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    /// As many as the CPU quota allows to run.
    Auto,
    /// This many.
    Count(usize),
}

impl FromStr for Workers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(count @ 1..=1024)) => Ok(Self::Count(count)),
            _ => Err("auto or a number from 1 to 1024 is expected".to_owned()),
        }
    }
}

/// A share in percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u32);

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%').unwrap_or(text).trim().parse() {
            Ok(percent @ 0..=100) => Ok(Self(percent)),
            _ => Err("a share from 0% to 100% is expected".to_owned()),
        }
    }
}

/// The name of a Kubernetes object (RFC 1123 subdomain), which serves as a token in HTTP too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);

impl FromStr for Name {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_sound = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if text.len() <= 253 && text.split('.').all(is_sound) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is not a name: lower-case letters, digits, '-' and '.' are expected"))
        }
    }
}
