//! The cases, read from `cases/client.txt`; what the columns mean is said there.

use crate::notation;

pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
    /// Any of these.
    pub(crate) required: Vec<Vec<Required>>,
    pub(crate) reaches: Vec<String>,
    pub(crate) stays: Vec<String>,
    pub(crate) known_to_fail: Option<String>,
}

/// What one request of a case must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Required {
    /// It reaches an endpoint, whose answer comes back.
    Forwarded,
    /// The gateway answers.
    Own(u16),
    /// The gateway answers and closes.
    Refused(u16),
    /// The gateway closes.
    Closed,
}

impl Case {
    /// The row of the catalogue that it belongs to.
    pub(crate) fn row(&self) -> &str {
        self.id.split('.').next().unwrap()
    }
}

pub(crate) fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let more = cases.last_mut().zip(line.get(2..));
        match (line.get(..2), more) {
            (Some("~ "), Some((case, text))) => case.reaches.push(text.to_ascii_lowercase()),
            (Some("! "), Some((case, text))) => case.stays.push(text.to_ascii_lowercase()),
            (Some("? "), Some((case, text))) => case.known_to_fail = Some(text.to_owned()),
            _ => cases.push(case(line)),
        }
    }
    cases
}

fn case(line: &str) -> Case {
    let columns: Vec<_> = line.splitn(4, " | ").collect();
    let [id, required, what, bytes] = columns[..] else { panic!("four columns: {line}") };
    Case {
        id: id.to_owned(),
        what: what.to_owned(),
        bytes: notation::bytes(bytes),
        required: required.split('/').map(|choice| choice.split('+').map(one).collect()).collect(),
        reaches: Vec::new(),
        stays: Vec::new(),
        known_to_fail: None,
    }
}

fn one(word: &str) -> Required {
    match (word, word.strip_prefix('R')) {
        ("NORM", _) => Required::Forwarded,
        ("CLOSE", _) => Required::Closed,
        (_, Some(status)) => Required::Refused(status.parse().unwrap()),
        (status, None) => Required::Own(status.parse().unwrap()),
    }
}
