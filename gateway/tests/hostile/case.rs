//! The cases of hostile clients, read from `cases/client.txt`; what the columns mean is said there.

use crate::notation::{self, Step};
use crate::wire::{self, Read};

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) steps: Vec<Step>,
    /// Any of these.
    pub(crate) required: Vec<Vec<Required>>,
    /// The requests that it consists of, as an endpoint must get them; empty where they are not known.
    pub(crate) meant: Vec<Meant>,
    /// What must stand in what reached the endpoint.
    pub(crate) reaches: Vec<String>,
    /// What must not.
    pub(crate) stays: Vec<String>,
    /// Sent in one piece only.
    pub(crate) whole_only: bool,
    /// Sent from an address whose words on earlier proxies are believed.
    pub(crate) trusted: bool,
    /// Sent to the listener for callers inside of the Kubernetes cluster.
    pub(crate) cluster: bool,
    pub(crate) known_to_fail: Option<String>,
}

/// What one request of a case must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Required {
    /// It reaches an endpoint, whose answer comes back.
    Forwarded,
    /// The endpoint's answer has this status.
    Endpoint(u16),
    /// The gateway answers.
    Own(u16),
    /// The gateway answers and closes, and nothing reaches an endpoint.
    Refused(u16),
    /// The gateway answers and closes; the request may have begun at an endpoint, but never ends there.
    BrokenOff(u16),
    /// The gateway closes.
    Closed,
    /// The gateway closes, because it takes the end of the client's direction for the end of the client, whose request
    /// may have reached the endpoint.
    Left,
    /// Any of: forwarded in one way that all readers understand alike, or refused.
    Safe,
}

/// A request as it was meant.
#[derive(Debug, Clone)]
pub(crate) struct Meant {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: Option<Vec<u8>>,
    /// The fields as sent, where they are known.
    pub(crate) fields: Option<wire::Fields>,
}

impl Case {
    /// The row of the catalogue that it belongs to.
    pub(crate) fn row(&self) -> &str {
        self.id.split('.').next().unwrap()
    }

    /// All bytes, without the other steps.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = self.steps.iter().filter_map(|step| match step {
            Step::Bytes(bytes) => Some(&bytes[..]),
            _ => None,
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

/// Reads the lines of a file of cases.
pub(crate) fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let more = line.get(..2).zip(line.get(2..)).zip(cases.last_mut());
        if !more.is_some_and(|((kind, text), case)| case.add(kind, text)) {
            cases.push(Case::parse(line));
        }
    }
    cases.iter_mut().for_each(Case::understand);
    cases
}

impl Case {
    fn parse(line: &str) -> Case {
        let columns: Vec<_> = line.splitn(4, " | ").collect();
        let [id, required, what, text] = columns[..] else { panic!("four columns: {line}") };
        Case::new(id, required, what, notation::steps(text))
    }

    /// A case of one kind of outcome.
    pub(crate) fn new(id: &str, required: &str, what: &str, steps: Vec<Step>) -> Case {
        Case {
            id: id.to_owned(),
            what: what.to_owned(),
            steps,
            required: required.split('/').map(several).collect(),
            meant: Vec::new(),
            reaches: Vec::new(),
            stays: Vec::new(),
            whole_only: false,
            trusted: false,
            cluster: false,
            known_to_fail: None,
        }
    }

    /// Takes a line that belongs to the case; false if it does not.
    fn add(&mut self, kind: &str, text: &str) -> bool {
        match kind {
            "~ " => self.reaches.push(text.to_ascii_lowercase()),
            "! " => self.stays.push(text.to_ascii_lowercase()),
            "? " => self.known_to_fail = Some(text.to_owned()),
            "> " => self.meant.push(meant(text)),
            "@ " => match text {
                "whole" => self.whole_only = true,
                "trusted" => self.trusted = true,
                "cluster" => self.cluster = true,
                _ => panic!("no such mark: {text}"),
            },
            _ => return false,
        }
        true
    }

    /// What is not said is what a strict reader makes of the bytes.
    fn understand(&mut self) {
        if self.meant.is_empty() {
            self.understand_all(&self.bytes());
        }
    }

    /// The same for requests that are known one by one.
    pub(crate) fn understand_each(&mut self, requests: &[Vec<u8>]) {
        for request in requests {
            // An empty line before a request is no part of it.
            self.understand_all(request.strip_prefix(b"\r\n").unwrap_or(request));
        }
    }

    fn understand_all(&mut self, mut bytes: &[u8]) {
        while let Read::Whole(request, used) = wire::request(bytes) {
            bytes = &bytes[used..];
            self.meant.push(Meant {
                method: request.method,
                target: request.target,
                body: Some(request.body),
                fields: Some(request.fields),
            });
        }
    }
}

/// `POST /a hello`: method, target and body.
fn meant(text: &str) -> Meant {
    let words: Vec<_> = text.splitn(3, ' ').collect();
    let [method, target, body] = words[..] else { panic!("method, target and body: {text}") };
    Meant {
        method: method.to_owned(),
        target: wire::latin1(&notation::bytes(target)),
        body: Some(notation::bytes(body)),
        fields: None,
    }
}

fn several(choice: &str) -> Vec<Required> {
    choice
        .split('+')
        .flat_map(|word| {
            let (word, times) = word.split_once('*').unwrap_or((word, "1"));
            vec![one(word); times.parse().unwrap()]
        })
        .collect()
}

fn one(word: &str) -> Required {
    let status = |text: &str| text.parse().unwrap_or_else(|_| panic!("no outcome: {word}"));
    match (word, word.split_at(1)) {
        ("NORM", _) => Required::Forwarded,
        ("CLOSE", _) => Required::Closed,
        ("LEFT", _) => Required::Left,
        ("SAFE", _) => Required::Safe,
        (_, ("R", rest)) => Required::Refused(status(rest)),
        (_, ("B", rest)) => Required::BrokenOff(status(rest)),
        (_, ("E", rest)) => Required::Endpoint(status(rest)),
        _ => Required::Own(status(word)),
    }
}
