//! What a Service's annotations ask for: every `portolan.dev/…` annotation, in one table.

use std::time::Duration;

use http::HeaderName;
use jiff::SignedDuration;
use portolan_model::{
    Affinity, Balancing, ClusterPolicy, Finding, HealthCheck, Hostname, Probe, ResourceRef,
};

use super::text::shortened;
use crate::objects::PREFIX;

/// One annotation that Portolan reads.
#[derive(Debug)]
pub struct Annotation {
    /// Its name behind `portolan.dev/`.
    pub name: &'static str,
    /// The values that it takes, in words.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
    read: fn(&mut Asked, &str) -> Result<(), String>,
}

/// The annotations of a Service. They are read in this order, so what an entry builds on stands above it.
pub static SERVICE_ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: "expose",
        values: "true or false",
        meaning: "Whether the Service gets routes; false hides it whatever else says otherwise.",
        read: |asked, value| put(&mut asked.expose, truth(value)),
    },
    Annotation {
        name: "path",
        values: "a path such as /orders or /orders/**",
        meaning: "The path, with everything below it, instead of the automatic /NAME/**. It is not stripped unless \
                  strip-prefix says so.",
        read: |asked, value| put(&mut asked.path, path_prefix(value)),
    },
    Annotation {
        name: "strip-prefix",
        values: "true or false",
        meaning: "Whether the path that matched is taken off before the request goes on.",
        read: |asked, value| put(&mut asked.strip_prefix, truth(value)),
    },
    Annotation {
        name: "host",
        values: "host names with commas between, such as shop.example.com, *.shop.example.com",
        meaning: "The hosts that are answered. Without a path, the whole host.",
        read: |asked, value| hosts(&mut asked.hosts, value),
    },
    Annotation {
        name: "port",
        values: "the name or the number of one of the Service's TCP ports",
        meaning: "The port that routes lead to.",
        read: |asked, value| put(&mut asked.port, port(value)),
    },
    Annotation {
        name: "upstream-host",
        values: "a host name, with a port if need be",
        meaning: "The Host that the endpoints see; by default the client's own.",
        read: |asked, value| put(&mut asked.upstream_host, authority(value)),
    },
    Annotation {
        name: "balance",
        values: "round-robin or least-connection",
        meaning: "How an endpoint is picked.",
        read: |asked, value| set(&mut asked.policy.balancing, balancing(value)),
    },
    Annotation {
        name: "affinity",
        values: "none, cookie, client-ip or header:NAME",
        meaning: "What ties a client to one endpoint.",
        read: |asked, value| set(&mut asked.policy.affinity, affinity(value, &asked.cookie)),
    },
    Annotation {
        name: "health",
        values: "http, tcp or off",
        meaning: "Active checks: an HTTP request, a connection, or none.",
        read: |asked, value| set(&mut asked.policy.health_check, health(value)),
    },
    Annotation {
        name: "health-path",
        values: "a path such as /actuator/health",
        meaning: "The path that an active check asks for; turns HTTP checks on.",
        read: health_path,
    },
    Annotation {
        name: "health-interval",
        values: "a duration such as 10s",
        meaning: "From the start of one check to the start of the next.",
        read: |asked, value| {
            let check = checks(asked)?;
            set(&mut check.interval, duration(value))?;
            // A hung endpoint would else hold up its own next check; `health-timeout` is read after this.
            check.timeout = check.timeout.min(check.interval / 2);
            Ok(())
        },
    },
    Annotation {
        name: "health-timeout",
        values: "a duration such as 2s",
        meaning: "How long the answer to a check may take.",
        read: |asked, value| set(&mut checks(asked)?.timeout, duration(value)),
    },
    Annotation {
        name: "healthy-threshold",
        values: "a number from 1 to 100",
        meaning: "Good answers in a row that make an unhealthy endpoint healthy.",
        read: |asked, value| set(&mut checks(asked)?.healthy_threshold, number(value, 1, 100)),
    },
    Annotation {
        name: "unhealthy-threshold",
        values: "a number from 1 to 100",
        meaning: "Bad answers in a row that make a healthy endpoint unhealthy.",
        read: |asked, value| set(&mut checks(asked)?.unhealthy_threshold, number(value, 1, 100)),
    },
    Annotation {
        name: "connect-timeout",
        values: "a duration such as 1s",
        meaning: "How long opening a connection to an endpoint may take.",
        read: |asked, value| set(&mut asked.policy.timeouts.connect, duration(value)),
    },
    Annotation {
        name: "response-timeout",
        values: "a duration such as 60s",
        meaning: "From the end of the request to the head of the response.",
        read: |asked, value| set(&mut asked.policy.timeouts.response_header, duration(value)),
    },
    Annotation {
        name: "stream-idle-timeout",
        values: "a duration such as 5m",
        meaning: "How long neither body may move.",
        read: |asked, value| set(&mut asked.policy.timeouts.stream_idle, duration(value)),
    },
    Annotation {
        name: "request-timeout",
        values: "a duration such as 2m, or off",
        meaning: "How long the whole exchange may take.",
        read: |asked, value| set(&mut asked.policy.timeouts.request, optional_duration(value)),
    },
    Annotation {
        name: "retries",
        values: "a number from 0 to 2",
        meaning: "How often a request that never reached an endpoint is tried on another one.",
        read: |asked, value| set(&mut asked.policy.retry.max_retries, number(value, 0, 2)),
    },
    Annotation {
        name: "slow-start",
        values: "a duration such as 30s, or off",
        meaning: "Over how long a new endpoint's share grows to its full size.",
        read: |asked, value| set(&mut asked.policy.slow_start, optional_duration(value)),
    },
    Annotation {
        name: "outlier-failures",
        values: "a number from 0 to 1000, 0 for never",
        meaning: "Failures in a row after which an endpoint is left out for a while.",
        read: |asked, value| {
            set(&mut asked.policy.outlier_detection.consecutive_failures, number(value, 0, 1000))
        },
    },
    Annotation {
        name: "outlier-ejection",
        values: "a duration such as 5s",
        meaning: "For how long an endpoint is left out the first time; each further time is longer by as much.",
        read: |asked, value| set(&mut asked.policy.outlier_detection.base_ejection, duration(value)),
    },
    Annotation {
        name: "outlier-max-percent",
        values: "a number from 0 to 100",
        meaning: "The share of the endpoints that may be left out at once for their answers.",
        read: |asked, value| {
            let percent = number(value, 0, 100).map(|percent| u8::try_from(percent).unwrap_or(100));
            set(&mut asked.policy.outlier_detection.max_ejected_percent, percent)
        },
    },
    Annotation {
        name: "eject-on-500",
        values: "true or false",
        meaning: "Whether an answer of 500 counts as a failure, as 502, 503 and 504 do.",
        read: |asked, value| set(&mut asked.policy.outlier_detection.eject_on_500, truth(value)),
    },
];

/// What a Service asks for by its annotations.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) expose: Option<bool>,
    /// Without a trailing slash; empty means every path.
    pub(super) path: Option<String>,
    pub(super) strip_prefix: Option<bool>,
    pub(super) hosts: Vec<Hostname>,
    pub(super) port: Option<PortChoice>,
    pub(super) upstream_host: Option<String>,
    pub(super) policy: ClusterPolicy,
    /// The names of the annotations whose value was not understood.
    pub(super) faulty: Vec<&'static str>,
    /// The cookie that `affinity: cookie` means.
    cookie: String,
}

/// The port that an annotation names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PortChoice {
    Number(u16),
    Name(String),
}

impl Asked {
    /// Reads the annotations of the Service `resource` on top of `policy`. A value that is not understood is a
    /// finding and changes nothing.
    pub(super) fn read<'a>(
        resource: &ResourceRef,
        annotations: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        policy: ClusterPolicy,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut asked = Self {
            expose: None,
            path: None,
            strip_prefix: None,
            hosts: Vec::new(),
            port: None,
            upstream_host: None,
            policy,
            faulty: Vec::new(),
            // Services share hosts on the edge, so each needs a cookie of its own.
            cookie: format!("portolan-{}-{}", resource.namespace, resource.name),
        };
        for annotation in SERVICE_ANNOTATIONS {
            let named = |(key, _): &(&str, &str)| key.strip_prefix(PREFIX) == Some(annotation.name);
            let Some((_, value)) = annotations.clone().find(named) else { continue };
            if let Err(why) = (annotation.read)(&mut asked, value.trim()) {
                asked.faulty.push(annotation.name);
                findings.push(not_understood(resource, annotation.name, value, &why, annotation.values));
            }
        }
        let names = SERVICE_ANNOTATIONS.iter().map(|annotation| annotation.name);
        unknown_keys(resource, annotations.map(|(key, _)| key), names, findings);
        asked
    }

    /// Whether the annotation is there but was not understood.
    pub(super) fn is_faulty(&self, name: &str) -> bool {
        self.faulty.contains(&name)
    }
}

/// The path of an annotation in its object.
pub(super) fn field(name: &str) -> String {
    format!("metadata.annotations[\"{PREFIX}{name}\"]")
}

/// The finding for a value that cannot be read.
pub(super) fn not_understood(
    resource: &ResourceRef,
    name: &str,
    value: &str,
    why: &str,
    values: &str,
) -> Finding {
    let message = format!("{:?} is not understood: {why}; expected {values}", shortened(value));
    Finding::error(resource, field(name), "InvalidAnnotation", message)
}

/// A finding for each key under `portolan.dev/` that is none of `names`.
pub(super) fn unknown_keys<'a>(
    resource: &ResourceRef,
    keys: impl Iterator<Item = &'a str>,
    names: impl Iterator<Item = &'static str> + Clone,
    findings: &mut Vec<Finding>,
) {
    for key in keys {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if names.clone().any(|known| known == name) {
            continue;
        }
        let nearest = names.clone().min_by_key(|known| strsim::osa_distance(known, name));
        let hint = match nearest {
            Some(known) if strsim::osa_distance(known, name) <= 1 + known.len() / 3 => {
                format!("did you mean {PREFIX}{known}?")
            }
            _ => "see docs/annotations.md for those that there are".to_owned(),
        };
        let message = format!("there is no such annotation, and so it does nothing; {hint}");
        findings.push(Finding::warning(resource, field(&shortened(name)), "UnknownAnnotation", message));
    }
}

fn put<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *place = Some(value?);
    Ok(())
}

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it is neither true nor false".to_owned()),
    }
}

/// Reads a path with everything below it, and returns it without a trailing slash.
fn path_prefix(value: &str) -> Result<String, String> {
    let path = value.strip_suffix("/**").or_else(|| value.strip_suffix('/')).unwrap_or(value);
    if !value.starts_with('/') {
        return Err("it does not start with a slash".to_owned());
    }
    if path.ends_with('/') {
        return Err("it has two slashes in a row".to_owned());
    }
    sound_path(path)?;
    sound_escapes(path)?;
    Ok(path.to_owned())
}

/// Whether a request's path, which is normalised before it is matched, can ever look like this.
fn sound_path(path: &str) -> Result<(), String> {
    if path.contains('*') {
        return Err("an asterisk may only stand in a trailing /**".to_owned());
    }
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || "?#\\\"<>^`{|}".contains(*c)) {
        return Err(format!("{bad:?} cannot stand in a path; write it percent-encoded"));
    }
    if path.contains("//") {
        return Err("it has two slashes in a row".to_owned());
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("it has a . or .. segment".to_owned());
    }
    Ok(())
}

/// A request with any of these in its path is refused before it is matched.
fn sound_escapes(path: &str) -> Result<(), String> {
    for (at, _) in path.match_indices('%') {
        let code = path.get(at + 1..at + 3).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        match code.map(str::to_ascii_lowercase).as_deref() {
            None => return Err("a % has no two hexadecimal digits behind it".to_owned()),
            Some("2f" | "5c") => return Err("an encoded slash or backslash is never routed".to_owned()),
            Some("00") => return Err("an encoded NUL is never routed".to_owned()),
            Some(_) => {}
        }
    }
    // What stands behind a semicolon is cut before dot segments are looked for, as some servers do.
    let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%3b", ";").replace("%3B", ";");
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if decoded.split('/').any(is_dots) {
        return Err("it has an encoded . or .. segment, or one before a semicolon".to_owned());
    }
    Ok(())
}

/// Reads host names with commas between. Those that are sound count even if others are not.
fn hosts(hosts: &mut Vec<Hostname>, value: &str) -> Result<(), String> {
    let mut faults = Vec::new();
    for text in value.split(',').map(str::trim) {
        match Hostname::parse(text) {
            Ok(host) if !hosts.contains(&host) => hosts.push(host),
            Ok(_) => {}
            Err(error) => faults.push(shortened(&error.to_string()).into_owned()),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

fn port(value: &str) -> Result<PortChoice, String> {
    if value.is_empty() {
        return Err("it is empty".to_owned());
    }
    if value.bytes().all(|b| b.is_ascii_digit()) {
        return match value.parse() {
            Ok(0) | Err(_) => Err("a port number is from 1 to 65535".to_owned()),
            Ok(number) => Ok(PortChoice::Number(number)),
        };
    }
    Ok(PortChoice::Name(value.to_owned()))
}

fn authority(value: &str) -> Result<String, String> {
    let (host, port) = match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => (host, Some(port)),
        _ => (value, None),
    };
    if let Some(port) = port {
        self::port(port).and_then(|port| match port {
            PortChoice::Number(_) => Ok(()),
            PortChoice::Name(_) => Err("its port is not a number".to_owned()),
        })?;
    }
    let host = Hostname::parse(host).map_err(|error| error.to_string())?;
    if host.wildcard_suffix().is_some() {
        return Err("a wildcard cannot be sent".to_owned());
    }
    Ok(value.to_owned())
}

fn balancing(value: &str) -> Result<Balancing, String> {
    match value {
        "round-robin" => Ok(Balancing::RoundRobin),
        "least-connection" => Ok(Balancing::LeastConnection),
        _ => Err("there is no such way to balance".to_owned()),
    }
}

fn affinity(value: &str, cookie: &str) -> Result<Affinity, String> {
    match value.split_once(':') {
        None if value == "none" => Ok(Affinity::None),
        None if value == "cookie" => Ok(Affinity::Cookie(cookie.to_owned())),
        None if value == "client-ip" => Ok(Affinity::ClientIp),
        Some(("header", name)) => match HeaderName::from_bytes(name.trim().as_bytes()) {
            Ok(name) => Ok(Affinity::Header(name.as_str().to_owned())),
            Err(_) => Err("what stands behind header: is not a header name".to_owned()),
        },
        _ => Err("there is no such affinity".to_owned()),
    }
}

fn health(value: &str) -> Result<Option<HealthCheck>, String> {
    match value {
        "http" => Ok(Some(health_check(Probe::Http("/".to_owned())))),
        "tcp" => Ok(Some(health_check(Probe::Tcp))),
        "off" => Ok(None),
        _ => Err("there is no such check".to_owned()),
    }
}

fn health_path(asked: &mut Asked, value: &str) -> Result<(), String> {
    let (path, query) = value.split_once('?').map_or((value, None), |(path, query)| (path, Some(query)));
    if !path.starts_with('/') {
        return Err("it does not start with a slash".to_owned());
    }
    sound_path(path)?;
    if query.is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
        return Err("its query has a character that cannot stand there".to_owned());
    }
    let probe = Probe::Http(value.to_owned());
    match &mut asked.policy.health_check {
        Some(HealthCheck { probe: Probe::Tcp, .. }) => {
            return Err(format!("{PREFIX}health asks for tcp checks, which have no path"));
        }
        Some(check) => check.probe = probe,
        none => *none = Some(health_check(probe)),
    }
    Ok(())
}

fn health_check(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
    }
}

fn checks(asked: &mut Asked) -> Result<&mut HealthCheck, String> {
    let missing =
        || format!("without {PREFIX}health-path or {PREFIX}health there are no checks that it could shape");
    asked.policy.health_check.as_mut().ok_or_else(missing)
}

fn duration(value: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 60 * 60);
    let parsed = value.parse::<SignedDuration>().map_err(|_| "it is not a number with a unit".to_owned())?;
    match Duration::try_from(parsed) {
        Ok(duration) if duration >= Duration::from_millis(1) && duration <= day => Ok(duration),
        _ => Err("it must be from 1ms to 24h".to_owned()),
    }
}

fn optional_duration(value: &str) -> Result<Option<Duration>, String> {
    if value == "off" { Ok(None) } else { duration(value).map(Some) }
}

fn number(value: &str, least: u32, most: u32) -> Result<u32, String> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("it is not a whole number from {least} to {most}")),
    }
}
