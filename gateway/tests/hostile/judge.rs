//! Whether what came of a case is what it requires: at the client, at the endpoint and in the access log.

use std::collections::BTreeSet;

use crate::case::{Case, Meant, Required};
use crate::endpoint::Arrival;
use crate::gateway::Line;
use crate::trial::{Answer, Seen, Trial};
use crate::wire::{self, Fields, Request};

/// Fields that the gateway writes, or writes anew.
const OWN: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "forwarded",
    "via",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// Fields that end at the gateway: for one hop, or what strangers must not say.
const ENDS_HERE: [&str; 16] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy",
    "upgrade",
    "http2-settings",
    "expect",
    "x-real-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-rewrite-url",
    "cf-connecting-ip",
    "x-remote-ip",
];
/// And those whose names begin like this, but for the gateway's own.
const END_HERE_TOO: [&str; 3] = ["x-forwarded-", "x-original-", "x-envoy-"];

/// Names that have no place in trailers (RFC 9110 section 6.5.1), and so must not be announced for them either.
const NO_TRAILERS: [&str; 10] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "x-forwarded-for",
];

/// Judges one trial by what arrived from its client and what was logged of it.
pub(crate) fn judge(
    trial: &Trial<'_>,
    seen: &Seen,
    arrivals: &[Arrival],
    log: &[Line],
) -> Result<(), String> {
    if let Some(fault) = &seen.fault {
        return Err(fault.clone());
    }
    let case = trial.case;
    let choice = case.required.iter().find(|choice| fits(choice, seen)).ok_or_else(|| {
        let answers: Vec<_> = seen.answers.iter().map(shown).collect();
        let closed = if seen.closed { "closed" } else { "left open" };
        format!("answers {answers:?} and {closed}; {} arrived", arrivals.len())
    })?;
    let whole = arrived(choice, seen, arrivals)?;
    texts(case, trial, &whole, arrivals)?;
    if choice != &[Required::Safe] {
        for (request, meant) in whole.iter().zip(meanings(case, choice)) {
            as_meant(request, meant)?;
        }
    }
    if case.trusted { Ok(()) } else { logged(seen, log) }
}

fn shown(answer: &Answer) -> String {
    let from = if answer.from_endpoint { "endpoint" } else { "gateway" };
    format!("{} of the {from}", answer.status)
}

fn fits(choice: &[Required], seen: &Seen) -> bool {
    match choice {
        [Required::Safe] => true,
        [before @ .., Required::Closed | Required::Left] => seen.closed && all_may_be(before, &seen.answers),
        _ => {
            let closes = matches!(choice.last(), Some(Required::Refused(_) | Required::BrokenOff(_)));
            all_may_be(choice, &seen.answers) && (seen.closed || !closes)
        }
    }
}

fn all_may_be(choice: &[Required], answers: &[Answer]) -> bool {
    let mut pairs = choice.iter().zip(answers);
    choice.len() == answers.len() && pairs.all(|(required, answer)| required.may_be(answer))
}

/// The whole requests that reached the endpoint: one for each answer of the endpoint that the client got, no more.
fn arrived<'a>(
    choice: &[Required],
    seen: &Seen,
    arrivals: &'a [Arrival],
) -> Result<Vec<&'a Request>, String> {
    let mut whole = Vec::new();
    // The body of a request that is answered before it has ended may never come to its end.
    let early = choice.iter().any(|required| matches!(required, Required::Endpoint(_)));
    let breaks = early
        || choice.iter().any(|it| {
            matches!(it, Required::BrokenOff(_) | Required::Closed | Required::Left | Required::Safe)
        });
    for arrival in arrivals {
        match arrival {
            Arrival::Whole(request) => whole.push(request),
            Arrival::Begun(_) if breaks => {}
            Arrival::Begun(text) => return Err(format!("a part of it reached the endpoint: {text:?}")),
            Arrival::Garbage(why, text) => return Err(format!("the endpoint got garbage, {why}: {text:?}")),
        }
    }
    let answers = seen.answers.iter().chain(&seen.canary);
    let answered = answers.filter(|answer| answer.from_endpoint).count();
    let left = choice.last() == Some(&Required::Left);
    let as_answered =
        whole.len() == answered || early && whole.len() < answered || left && whole.len() <= answered + 1;
    if !as_answered {
        let targets: Vec<_> = whole.iter().map(|request| &request.target).collect();
        return Err(format!("{answered} answers of the endpoint, but it got {targets:?}"));
    }
    Ok(whole)
}

/// What the requests that are forwarded were meant to be.
fn meanings<'a>(case: &'a Case, choice: &'a [Required]) -> impl Iterator<Item = &'a Meant> {
    let forwarded = choice.iter().zip(&case.meant);
    forwarded.filter(|(required, _)| **required == Required::Forwarded).map(|(_, meant)| meant)
}

fn texts(case: &Case, trial: &Trial<'_>, whole: &[&Request], arrivals: &[Arrival]) -> Result<(), String> {
    let canary = trial.canary();
    let of_case: Vec<_> = whole.iter().filter(|request| request.target != canary).collect();
    let mut all: String = of_case.iter().map(|request| text(request)).collect();
    if let Some(missing) = case.reaches.iter().find(|text| !of_case.is_empty() && !all.contains(*text)) {
        return Err(format!("{missing:?} did not reach the endpoint: {all:?}"));
    }
    for arrival in arrivals {
        if let Arrival::Begun(text) = arrival {
            all += &text.to_ascii_lowercase();
        }
    }
    match case.stays.iter().find(|text| all.contains(*text)) {
        Some(leaked) => Err(format!("{leaked:?} reached the endpoint: {all:?}")),
        None => Ok(()),
    }
}

/// A request as text, in lower case.
fn text(request: &Request) -> String {
    let fields = |fields: &Fields| {
        let lines: Vec<_> = fields.0.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        lines.concat()
    };
    let Request { method, target, version, .. } = request;
    let body = wire::latin1(&request.body);
    let (head, trailers) = (fields(&request.fields), fields(&request.trailers));
    format!("{method} {target} {version}\n{head}\n{body}\n{trailers}").to_ascii_lowercase()
}

/// The endpoint got what the client meant.
fn as_meant(request: &Request, meant: &Meant) -> Result<(), String> {
    let differs = |what: &str, sent: &str, arrived: &str| {
        Err(format!("the {what} sent was {sent:?}, but {arrived:?} arrived"))
    };
    if request.version != "HTTP/1.1" {
        return differs("version", "HTTP/1.1", &request.version);
    }
    if request.method != meant.method {
        return differs("method", &meant.method, &request.method);
    }
    if request.target != meant.target {
        return differs("target", &meant.target, &request.target);
    }
    if let Some(body) = meant.body.as_ref().filter(|body| **body != request.body) {
        return differs("body", &wire::latin1(body), &wire::latin1(&request.body));
    }
    if request.fields.all("host").count() != 1 {
        return Err("not one Host at the endpoint".to_owned());
    }
    let announced = request.fields.all("trailer").flat_map(|list| list.split(',')).map(str::trim);
    let trailers = announced.chain(request.trailers.0.iter().map(|(name, _)| name.as_str()));
    if let Some(name) = trailers.map(str::to_ascii_lowercase).find(|name| NO_TRAILERS.contains(&&**name)) {
        return Err(format!("{name} is announced or sent as a trailer"));
    }
    match &meant.fields {
        Some(fields) => same_fields(fields, &request.fields),
        None => Ok(()),
    }
}

/// Every field is passed on as it is and in its order, but those that end here; and nothing is added but our own.
fn same_fields(sent: &Fields, arrived: &Fields) -> Result<(), String> {
    let listed: Vec<_> = sent.all("connection").flat_map(|list| list.split(',')).map(str::trim).collect();
    let ends_here = |name: &str| {
        ENDS_HERE.contains(&name)
            || END_HERE_TOO.iter().any(|prefix| name.starts_with(prefix))
            || listed.iter().any(|listed| listed.eq_ignore_ascii_case(name))
    };
    if sent.first("host") != arrived.first("host") {
        return Err(format!("Host is {:?} at the endpoint", arrived.first("host")));
    }
    let names: BTreeSet<_> = sent.0.iter().chain(&arrived.0).map(|(name, _)| name.as_str()).collect();
    for name in names.into_iter().filter(|name| !OWN.contains(name)) {
        let sent: Vec<_> = sent.all(name).collect();
        let arrived: Vec<_> = arrived.all(name).collect();
        let right = if ends_here(name) { arrived.is_empty() } else { arrived == sent };
        if !right {
            return Err(format!("{name}: sent {sent:?}, arrived {arrived:?}"));
        }
    }
    Ok(())
}

/// Exactly one line for each answer, in their order, with its status and, where the gateway failed it, its reason.
fn logged(seen: &Seen, log: &[Line]) -> Result<(), String> {
    let answers: Vec<_> = seen.answers.iter().chain(&seen.canary).collect();
    let mut lines = log.iter();
    for answer in &answers {
        let line =
            lines.next().ok_or_else(|| format!("{} answers, but only {log:?} in the log", answers.len()))?;
        let reason_fits = match (&answer.reason, &line.reason) {
            (Some(told), Some(logged)) => told == logged,
            (None, Some(_)) => !answer.from_endpoint,
            (Some(_), None) => false,
            (None, None) => answer.from_endpoint || answer.status < 400,
        };
        if line.status != answer.status || !reason_fits {
            return Err(format!(
                "the log says {line:?} of an answer with {} {:?}",
                answer.status, answer.reason
            ));
        }
    }
    // What was not answered may have a line that says so.
    match lines.next() {
        Some(line) if line.reason.is_none() || answers.last().is_some_and(|answer| answer.last) => {
            Err(format!("a line of the log without an answer: {line:?}"))
        }
        _ if lines.next().is_some() => Err(format!("too many lines in the log: {log:?}")),
        _ => Ok(()),
    }
}
