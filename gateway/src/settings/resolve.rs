//! From what was said (flags, environment, file) to what is meant ([`Settings`]).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use super::{SPECS, Settings, Spec};

/// The raw texts of the flags that were given, by setting.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags(pub(crate) BTreeMap<&'static str, Vec<String>>);

impl Flags {
    /// Adds a flag for every setting to a command.
    pub(crate) fn declare(command: clap::Command) -> clap::Command {
        SPECS.iter().fold(command, |command, spec| command.arg(argument(spec)))
    }

    /// The flags that were given.
    pub(crate) fn from_matches(matches: &clap::ArgMatches) -> Self {
        let given = SPECS.iter().filter_map(|spec| {
            let texts = matches.get_many::<String>(spec.name)?.cloned().collect();
            Some((spec.name, texts))
        });
        Self(given.collect())
    }
}

fn argument(spec: &'static Spec) -> clap::Arg {
    let about = match spec.default {
        "" => format!("{} [env: {}]", spec.help.trim(), spec.variable()),
        default => format!("{} [default: {default}] [env: {}]", spec.help.trim(), spec.variable()),
    };
    let arg = clap::Arg::new(spec.name)
        .long(spec.name)
        .value_name(spec.placeholder)
        .help(about.replace('\n', " "))
        .hide_default_value(true);
    match (spec.list, spec.switch) {
        (true, _) => arg.action(clap::ArgAction::Append).value_delimiter(','),
        (_, true) => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

/// The content of a configuration file: texts by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ConfigFile {
    /// What the file is called in messages.
    pub(crate) label: String,
    values: BTreeMap<String, Vec<String>>,
}

impl ConfigFile {
    /// Reads a configuration file from its YAML text.
    ///
    /// # Errors
    /// The text is not a YAML mapping from keys to a value or a list of values.
    pub(crate) fn parse(label: &str, yaml: &str) -> Result<Self, Problem> {
        let fault = |message: String| Problem { origin: label.to_owned(), message };
        if yaml.trim().is_empty() {
            return Ok(Self { label: label.to_owned(), values: BTreeMap::new() });
        }
        // YAML 1.1 would take the words on and off for booleans; here off is a value of settings.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let read: Option<BTreeMap<String, serde_json::Value>> =
            serde_saphyr::from_str_with_options(yaml, options)
                .map_err(|error| fault(format!("not a mapping of settings: {error}")))?;
        let mut values = BTreeMap::new();
        for (key, value) in read.unwrap_or_default() {
            let texts = texts(&value)
                .ok_or_else(|| fault(format!("{key}: a value or a list of values is expected")))?;
            values.insert(key, texts);
        }
        Ok(Self { label: label.to_owned(), values })
    }

    /// Reads a configuration file from disk.
    ///
    /// # Errors
    /// The file cannot be read or is not a YAML mapping.
    pub(crate) fn read(path: &Path) -> Result<Self, Problem> {
        let label = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(yaml) => Self::parse(&label, &yaml),
            Err(error) => {
                Err(Problem { origin: label, message: format!("the file cannot be read: {error}") })
            }
        }
    }
}

/// The texts of a value or of a list of values; none for anything else.
fn texts(value: &serde_json::Value) -> Option<Vec<String>> {
    match value {
        serde_json::Value::Array(values) => values.iter().map(text).collect(),
        value => text(value).map(|text| vec![text]),
    }
}

fn text(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    match value {
        Bool(value) => Some(value.to_string()),
        Number(value) => Some(value.to_string()),
        String(value) => Some(value.clone()),
        Null | Array(_) | Object(_) => None,
    }
}

/// Something that was said and cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was said: `flag --workers`, `environment variable PORTOLAN_WORKERS`, `key workers in portolan.yaml`.
    pub(crate) origin: String,
    /// What is wrong with it and what is expected.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Resolves every setting; a flag beats a variable, which beats the file, which beats the default.
///
/// # Errors
/// Every problem found, not just the first.
pub(crate) fn resolve(
    flags: &Flags,
    variable: &dyn Fn(&str) -> Option<String>,
    file: &ConfigFile,
) -> Result<Settings, Vec<Problem>> {
    let mut texts = Texts { flags, variable, file, problems: unknown_keys(file) };
    let settings = Settings::from_texts(&mut texts);
    texts.problems.extend(settings.iter().flat_map(contradictions));
    match settings {
        Some(settings) if texts.problems.is_empty() => Ok(settings),
        _ => Err(texts.problems),
    }
}

/// What each setting allows by itself, but not together.
fn contradictions(settings: &Settings) -> Vec<Problem> {
    let problem = |message: String| Problem { origin: "settings".to_owned(), message };
    let mut problems = Vec::new();
    if settings.all_namespaces && !settings.namespaces.is_empty() {
        problems
            .push(problem("namespaces and all-namespaces exclude each other: which is meant?".to_owned()));
    }
    problems.extend(without_certificate(settings).map(problem));
    let binds = settings.binds();
    for (index, (name, address)) in binds.iter().enumerate() {
        for (other, taken) in binds[..index].iter().filter(|(_, taken)| overlap(*address, *taken)) {
            problems
                .push(problem(format!("{other} {taken} and {name} {address} overlap: choose another port")));
        }
    }
    problems
}

/// What is missing for TLS, and what to do about it.
fn without_certificate(settings: &Settings) -> Option<String> {
    match (settings.listen_tls.first(), &settings.tls_cert, &settings.tls_key) {
        (_, Some(file), None) => Some(format!(
            "tls-cert {} has no key: name the file with its private key by tls-key",
            file.display()
        )),
        (_, None, Some(file)) => {
            Some(format!("tls-key {} has no certificate: name the file with it by tls-cert", file.display()))
        }
        (Some(address), None, None) => Some(format!(
            "listen-tls {address} has no certificate: name the files with one and its private key by tls-cert and \
             tls-key"
        )),
        (_, Some(_), Some(_)) | (None, None, None) => None,
    }
}

/// Whether two sockets cannot be bound side by side. An unspecified IPv6 address takes IPv4 as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

fn unknown_keys(file: &ConfigFile) -> Vec<Problem> {
    let is_unknown = |key: &&String| !SPECS.iter().any(|spec| spec.name == key.as_str());
    let problem = |key: &String| Problem {
        origin: format!("key {key} in {}", file.label),
        message: match nearest(key) {
            Some(name) => format!("there is no such setting; did you mean {name}?"),
            None => "there is no such setting; docs/configuration.md lists them".to_owned(),
        },
    };
    file.values.keys().filter(is_unknown).map(problem).collect()
}

fn nearest(key: &str) -> Option<&'static str> {
    let key = key.replace('_', "-").to_ascii_lowercase();
    let distances = SPECS.iter().map(|spec| (strsim::osa_distance(&key, spec.name), spec.name));
    distances.min().filter(|(distance, name)| *distance <= name.len() / 3).map(|(_, name)| name)
}

/// The texts that were given, with a memory of what was wrong with them.
pub(super) struct Texts<'a> {
    flags: &'a Flags,
    variable: &'a dyn Fn(&str) -> Option<String>,
    file: &'a ConfigFile,
    problems: Vec<Problem>,
}

impl Texts<'_> {
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        reader: fn(&[String]) -> Result<T, String>,
    ) -> Option<T> {
        let spec =
            SPECS.iter().find(|spec| spec.name == name).expect("the table names every field's setting");
        let (origin, texts) = self.given(spec);
        match reader(&texts) {
            Ok(value) => Some(value),
            Err(message) => {
                let message = format!("{:?} cannot be used: {message}", texts.join(","));
                self.problems.push(Problem { origin, message });
                None
            }
        }
    }

    fn given(&self, spec: &Spec) -> (String, Vec<String>) {
        if let Some(texts) = self.flags.0.get(spec.name) {
            return (format!("flag --{}", spec.name), texts.clone());
        }
        if let Some(text) = (self.variable)(&spec.variable()) {
            return (format!("environment variable {}", spec.variable()), split(spec, &text));
        }
        if let Some(texts) = self.file.values.get(spec.name) {
            let texts = texts.iter().flat_map(|text| split(spec, text)).collect();
            return (format!("key {} in {}", spec.name, self.file.label), texts);
        }
        (format!("default of {}", spec.name), split(spec, spec.default))
    }
}

/// The values of a text; a list may be written with commas anywhere.
fn split(spec: &Spec, text: &str) -> Vec<String> {
    if spec.list { text.split(',').map(str::to_owned).collect() } else { vec![text.to_owned()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{AccessLog, Expose, Workers};

    fn flags(given: &[(&'static str, &str)]) -> Flags {
        Flags(given.iter().map(|(name, text)| (*name, vec![(*text).to_owned()])).collect())
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn every_default_can_be_read() {
        let settings = resolve(&Flags::default(), &none, &ConfigFile::default()).unwrap();
        assert_eq!(settings.listen, ["0.0.0.0:8080".parse().unwrap()]);
        assert_eq!(settings.request_timeout, None);
        assert!(settings.namespaces.is_empty());
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let file =
            ConfigFile::parse("portolan.yaml", "workers: 3\nexpose: all\nlisten: [127.0.0.1:1, 127.0.0.1:2]")
                .unwrap();
        let variable = |name: &str| (name == "PORTOLAN_WORKERS").then(|| "4".to_owned());
        let settings = resolve(&flags(&[("workers", "5")]), &variable, &file).unwrap();
        assert_eq!(settings.workers, Workers::Count(5));
        let settings = resolve(&Flags::default(), &variable, &file).unwrap();
        assert_eq!(settings.workers, Workers::Count(4));
        let settings = resolve(&Flags::default(), &none, &file).unwrap();
        assert_eq!(settings.workers, Workers::Count(3));
        assert_eq!(settings.expose, Expose::All);
        assert_eq!(settings.listen.len(), 2);
    }

    #[test]
    fn a_problem_says_where_what_and_what_is_expected() {
        let table = [
            (flags(&[("workers", "0")]), "", "flag --workers: \"0\" cannot be used: auto or a number"),
            (
                flags(&[("drain-delay", "10")]),
                "",
                "flag --drain-delay: \"10\" cannot be used: a time with its unit",
            ),
            (
                Flags::default(),
                "exposed: all",
                "key exposed in f.yaml: there is no such setting; did you mean expose?",
            ),
            (
                Flags::default(),
                "access-log: loud",
                "key access-log in f.yaml: \"loud\" cannot be used: one of off",
            ),
            (Flags::default(), "trusted-proxies: [10.0.0.0/8, ten]", "\"ten\": a network such as 10.0.0.0/8"),
            (Flags::default(), "retries: 5", "a number from 0 to 2"),
            (Flags::default(), "outlier-failures: few", "a number is expected, 0 or greater"),
            (Flags::default(), "namespaces: [a]\nall-namespaces: true", "exclude each other"),
            (
                Flags::default(),
                "listen: 0.0.0.0:9000\nadmin: 127.0.0.1:9000",
                "listen 0.0.0.0:9000 and admin 127.0.0.1:9000",
            ),
            (Flags::default(), "listen: ':8080'", "an address and a port such as 0.0.0.0:8080"),
            (Flags::default(), "bogus: 1", "there is no such setting; docs/configuration.md"),
        ];
        for (flags, yaml, expected) in table {
            let file = ConfigFile::parse("f.yaml", yaml).unwrap();
            let problems = resolve(&flags, &none, &file).unwrap_err();
            assert!(problems[0].to_string().contains(expected), "{} should say {expected}", problems[0]);
        }
        let error = ConfigFile::parse("f.yaml", "- a\n- b").unwrap_err().to_string();
        assert!(error.starts_with("f.yaml: not a mapping of settings"), "{error}");
        let error = ConfigFile::parse("f.yaml", "listen: {a: b}").unwrap_err().to_string();
        assert_eq!(error, "f.yaml: listen: a value or a list of values is expected");
    }

    #[test]
    fn words_and_lists_can_be_written_as_in_flags() {
        let yaml = "access-log: off\nrequest-timeout: off\nmax-body-bytes: off\nvia: true\nnamespaces: a, b\nlisten: []";
        let settings = resolve(&Flags::default(), &none, &ConfigFile::parse("f", yaml).unwrap()).unwrap();
        assert_eq!((settings.access_log, settings.request_timeout), (AccessLog::Off, None));
        assert_eq!(settings.namespaces.len(), 2);
        assert!(settings.listen.is_empty());
        for yaml in ["listen:", "listen: [[a]]", "listen: {a: b}"] {
            let error = ConfigFile::parse("f", yaml).unwrap_err().to_string();
            assert_eq!(error, "f: listen: a value or a list of values is expected", "{yaml}");
        }
    }

    #[test]
    fn a_changed_startup_setting_is_told_and_a_live_one_is_taken() {
        let before = resolve(&Flags::default(), &none, &ConfigFile::default()).unwrap();
        let file = ConfigFile::parse("f", "workers: 7\nexpose: all").unwrap();
        let after = resolve(&Flags::default(), &none, &file).unwrap();
        assert_eq!(before.startup_differences(&after), ["workers"]);
        let merged = before.with_live_of(&after);
        assert_eq!((merged.workers, merged.expose), (Workers::Auto, Expose::All));
    }
}
