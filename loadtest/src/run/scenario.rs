//! Scenarios: files that say what to send, so that a load has a name and a history.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use portolan_loadtest::amount;
use portolan_loadtest::measure::Shot;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What a file says; whatever it leaves out is as without a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Scenario {
    /// What it stands for, in a line.
    pub(super) about: Option<String>,
    /// Requests a second; without it the loop is closed.
    pub(super) rate: Option<f64>,
    pub(super) connections: Option<usize>,
    /// The share of requests on a connection of their own.
    #[serde(default, deserialize_with = "share")]
    pub(super) new_connections: Option<f64>,
    pub(super) protocol: Option<Spoken>,
    /// Requests at a time on each connection of HTTP/2.
    pub(super) streams: Option<usize>,
    #[serde(default, deserialize_with = "time")]
    pub(super) duration: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    pub(super) warm_up: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    pub(super) timeout: Option<Duration>,
    /// The mix.
    #[serde(rename = "request")]
    requests: Vec<Request>,
}

/// The protocol of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Spoken {
    #[serde(rename = "http/1.1")]
    Http1,
    #[serde(rename = "h2")]
    Http2,
}

/// One request of the mix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Request {
    /// How often, relative to the others.
    #[serde(default = "once")]
    share: f64,
    #[serde(default, deserialize_with = "method")]
    method: Method,
    #[serde(deserialize_with = "path")]
    path: String,
    /// Bytes of the body.
    #[serde(default)]
    body_size: usize,
    #[serde(default, deserialize_with = "fields")]
    headers: HeaderMap,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong there: a key that there is not, or a value that it cannot have.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let scenario: Self =
            toml::from_str(&text).with_context(|| format!("{} is not a scenario", file.display()))?;
        anyhow::ensure!(
            !scenario.requests.is_empty(),
            "{} has no [[request]]: nothing to send",
            file.display()
        );
        Ok(scenario)
    }

    /// Its mix, below the path `before`.
    ///
    /// # Errors
    /// If a path does not fit behind it.
    pub(super) fn shots(&self, before: &Uri) -> anyhow::Result<Vec<Shot>> {
        let before = before.path().trim_end_matches('/');
        self.requests.iter().map(|request| request.shot(before)).collect()
    }
}

impl Request {
    fn shot(&self, before: &str) -> anyhow::Result<Shot> {
        let path = format!("{before}{}", self.path);
        Ok(Shot {
            method: self.method.clone(),
            path: path.parse().with_context(|| format!("{path:?} is not a path"))?,
            headers: self.headers.clone(),
            body: Bytes::from(vec![b'.'; self.body_size]),
            weight: self.share,
        })
    }
}

fn once() -> f64 {
    1.0
}

/// Text that `read` understands.
fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&str) -> anyhow::Result<T>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).map_err(|error| D::Error::custom(format!("{error:#}")))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let read = |text: &str| {
        humantime::parse_duration(text).with_context(|| format!("{text:?} is not a time such as 4s or 2m"))
    };
    text(deserializer, read).map(Some)
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    text(deserializer, amount::share).map(Some)
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    text(deserializer, |text| Method::from_str(text).with_context(|| format!("{text:?} is not a method")))
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |text| {
        anyhow::ensure!(
            text.starts_with('/') && Uri::from_str(text).is_ok(),
            "{text:?} is not a path: it begins with a slash, and what no path can hold is percent-encoded"
        );
        Ok(text.to_owned())
    })
}

fn fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    let said = BTreeMap::<String, String>::deserialize(deserializer)?;
    let field = |(name, value): (String, String)| {
        let known =
            HeaderName::from_str(&name).map_err(|_| format!("{name:?} is not the name of a field"))?;
        let value =
            HeaderValue::from_str(&value).map_err(|_| format!("{value:?} cannot be the value of {name}"))?;
        Ok((known, value))
    };
    said.into_iter().map(field).collect::<Result<_, String>>().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Scenario> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("shop.toml");
        std::fs::write(&file, text)?;
        Scenario::read(&file)
    }

    #[test]
    fn every_key_is_understood() {
        let scenario = read(
            "about = \"a shop\"\nrate = 500\nconnections = 8\nnew-connections = \"5%\"\nprotocol = \"h2\"\nstreams = 4\n\
             duration = \"3s\"\nwarm-up = \"1s\"\ntimeout = \"2s\"\n[[request]]\nshare = 3\npath = \"/b/1k?x=1\"\n\
             [[request]]\nmethod = \"POST\"\npath = \"/\"\nbody-size = 10\nheaders = { X-One = \"1\" }\n",
        )
        .unwrap();
        assert_eq!((scenario.rate, scenario.new_connections), (Some(500.0), Some(0.05)));
        assert_eq!(
            (scenario.protocol, scenario.duration),
            (Some(Spoken::Http2), Some(Duration::from_secs(3)))
        );
        let shots = scenario.shots(&"/orders/".parse().unwrap()).unwrap();
        let paths: Vec<_> = shots.iter().map(|shot| (shot.path.to_string(), shot.weight)).collect();
        assert_eq!(paths, [("/orders/b/1k?x=1".to_owned(), 3.0), ("/orders/".to_owned(), 1.0)]);
        assert_eq!((&shots[1].method, shots[1].body.len()), (&Method::POST, 10));
        assert_eq!(shots[1].headers["x-one"], "1");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_line() {
        for (text, wrong) in [
            ("conections = 4\n[[request]]\npath = \"/\"", "line 1|unknown field `conections`"),
            ("[[request]]\npath = \"/\"\nbodysize = 4", "line 3|unknown field `bodysize`"),
            ("[[request]]\nmethod = \"GET\"", "missing field `path`"),
            ("[[request]]\npath = \"x\"", "line 2|\"x\" is not a path"),
            ("duration = \"soon\"\n[[request]]\npath = \"/\"", "line 1|\"soon\" is not a time"),
            ("new-connections = \"200%\"\n[[request]]\npath = \"/\"", "line 1|not between 0% and 100%"),
            ("protocol = \"h3\"\n[[request]]\npath = \"/\"", "line 1|unknown variant `h3`"),
            (
                "[[request]]\npath = \"/\"\nheaders = { \"a b\" = \"1\" }",
                "\"a b\" is not the name of a field",
            ),
            ("request = []", "no [[request]]"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains("shop.toml"), "{text:?}: {error}");
            for part in wrong.split('|') {
                assert!(error.contains(part), "{text:?}: {error} without {part}");
            }
        }
    }

    #[test]
    fn those_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            assert!(Scenario::read(&file).unwrap().about.is_some(), "{} says what it is", file.display());
        }
    }
}
