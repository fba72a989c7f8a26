//! What is measured, and what must come of it: the one table of cases and goals.

use anyhow::bail;

use super::goals::{Goal, amount, better_than, floor, goal, near, of_the_best, of_the_first};
use super::peer::Peer::{Envoy, HaProxy, Nginx};
use super::setup::Shape;

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    /// What `--case` calls it.
    pub(super) name: &'static str,
    /// What it is, in a line.
    pub(super) title: &'static str,
    pub(super) request: Request,
    pub(super) pace: Pace,
    pub(super) contest: Kind,
    /// The figure that is compared.
    pub(super) figure: Figure,
    pub(super) goals: &'static [Goal],
    /// Rounds that it has at least, whatever is asked for.
    pub(super) least_rounds: u32,
    /// And at most: what hardly varies need not be measured often.
    pub(super) most_rounds: u32,
}

/// What is asked, and over which connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) path: &'static str,
    /// Bytes of the body; a request with one is a POST.
    pub(super) body: usize,
    pub(super) tls: bool,
    pub(super) http2: bool,
    pub(super) connections: u32,
    /// Requests at once on each connection.
    pub(super) streams: u32,
    /// Whether each request opens a connection of its own.
    pub(super) new_connections: bool,
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As fast as the answers come.
    Closed,
    /// At half of the rate that HAProxy reaches in the first case, whatever the answers do.
    HalfOfPeak,
    /// Once on each connection, which is kept.
    Idle,
    /// So many, by a proxy that runs under valgrind.
    Counted,
}

/// Who runs against whom.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Every proxy, set up like this.
    Peers(Shape),
    /// Portolan as in the first case, and Portolan like this, by the name of the difference.
    Ourselves(&'static [(&'static str, Shape)]),
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// CPU time of the proxy for each request, in microseconds.
    Cpu,
    /// The latency that 99 of 100 requests do not exceed, in microseconds.
    P99,
    /// Resident memory for each connection, in KiB.
    Memory,
    /// Instructions in user space for each request.
    Instructions,
}

const GET: Request = Request {
    path: "/",
    body: 0,
    tls: false,
    http2: false,
    connections: 64,
    streams: 1,
    new_connections: false,
};
const TLS: Request = Request { tls: true, ..GET };
const HTTP2: Request = Request { http2: true, connections: 4, streams: 16, ..GET };
const WITH_TLS: Shape = Shape { tls: true, ..Shape::PLAIN };

const BASE: Case = Case {
    name: "",
    title: "",
    request: GET,
    pace: Pace::Closed,
    contest: Kind::Peers(Shape::PLAIN),
    figure: Figure::Cpu,
    goals: &[],
    least_rounds: 1,
    most_rounds: u32::MAX,
};

/// Every case, in the order in which they are measured.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "small",
        title: "HTTP/1.1, an answer of 102 bytes, 64 connections",
        goals: &[goal(HaProxy, 0.80), floor(HaProxy, 0.90), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "1k",
        title: "HTTP/1.1, an answer of 1 KiB, 64 connections",
        request: Request { path: "/b/1k", ..GET },
        goals: &[goal(HaProxy, 0.80), floor(HaProxy, 0.90), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "post",
        title: "HTTP/1.1, a POST of 10 KiB, 64 connections",
        request: Request { body: 10 * 1024, ..GET },
        goals: &[goal(HaProxy, 0.80), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "64k",
        title: "HTTP/1.1, an answer of 64 KiB, 64 connections",
        request: Request { path: "/b/64k", ..GET },
        goals: &[of_the_best(1.0), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "1m",
        title: "HTTP/1.1, an answer of 1 MiB, 64 connections",
        request: Request { path: "/b/1m", ..GET },
        goals: &[of_the_best(1.0)],
        ..BASE
    },
    Case {
        name: "new",
        title: "HTTP/1.1, a new connection for each request, 64 at once",
        request: Request { new_connections: true, ..GET },
        goals: &[goal(HaProxy, 0.90), floor(HaProxy, 1.0), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "tls",
        title: "TLS 1.3, HTTP/1.1, an answer of 102 bytes, 64 connections",
        request: TLS,
        contest: Kind::Peers(WITH_TLS),
        goals: &[goal(HaProxy, 0.85), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "handshakes",
        title: "TLS 1.3, a full handshake for each request, 64 at once",
        request: Request { new_connections: true, ..TLS },
        contest: Kind::Peers(WITH_TLS),
        goals: &[goal(HaProxy, 1.0), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "h2",
        title: "HTTP/2 over TLS, an answer of 102 bytes, 4 connections of 16 streams",
        request: Request { tls: true, ..HTTP2 },
        contest: Kind::Peers(WITH_TLS),
        goals: &[goal(HaProxy, 1.0), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "h2c",
        title: "HTTP/2 without TLS, an answer of 102 bytes, 4 connections of 16 streams",
        request: HTTP2,
        goals: &[goal(HaProxy, 1.0), better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "rate",
        title: "HTTP/1.1, an answer of 102 bytes, open loop at half of HAProxy's peak, 64 connections",
        pace: Pace::HalfOfPeak,
        figure: Figure::P99,
        goals: &[near(HaProxy, 1.0, 1.1)],
        least_rounds: 5,
        ..BASE
    },
    Case {
        name: "logged",
        title: "HTTP/1.1, an answer of 102 bytes, every request logged to a file, 64 connections",
        contest: Kind::Peers(Shape { logged: true, ..Shape::PLAIN }),
        goals: &[better_than(Nginx), better_than(Envoy)],
        ..BASE
    },
    Case {
        name: "table",
        title: "HTTP/1.1, an answer of 102 bytes, a large table, 64 connections",
        contest: Kind::Ourselves(&[
            ("5,000 routes", Shape { routes: 5_000, ..Shape::PLAIN }),
            ("100,000 endpoints", Shape { routes: 5_001, other_endpoints: 20, ..Shape::PLAIN }),
        ]),
        goals: &[of_the_first(1.05)],
        ..BASE
    },
    Case {
        name: "churn",
        title: "HTTP/1.1, an answer of 102 bytes, 100 changes of endpoints a second, 64 connections",
        contest: Kind::Ourselves(&[("under churn", Shape { churn: 100, ..Shape::PLAIN })]),
        goals: &[of_the_first(1.10)],
        ..BASE
    },
    Case {
        name: "leastconn",
        title: "HTTP/1.1, an answer of 102 bytes, least connection instead of round robin, 64 connections",
        contest: Kind::Ourselves(&[("least connection", Shape { least_connection: true, ..Shape::PLAIN })]),
        goals: &[of_the_first(1.03)],
        ..BASE
    },
    Case {
        name: "workers",
        title: "HTTP/1.1, an answer of 102 bytes, two workers instead of one, 64 connections",
        pace: Pace::Counted,
        contest: Kind::Ourselves(&[("two workers", Shape { workers: 2, ..Shape::PLAIN })]),
        figure: Figure::Instructions,
        goals: &[of_the_first(1.02)],
        most_rounds: 2,
        ..BASE
    },
    Case {
        name: "idle",
        title: "HTTP/1.1, 9,000 idle connections",
        request: Request { connections: 9_000, ..GET },
        pace: Pace::Idle,
        figure: Figure::Memory,
        most_rounds: 2,
        goals: &[amount(10.0)],
        ..BASE
    },
    Case {
        name: "idle-tls",
        title: "TLS 1.3, HTTP/1.1, 9,000 idle connections",
        request: Request { connections: 9_000, ..TLS },
        pace: Pace::Idle,
        contest: Kind::Peers(WITH_TLS),
        figure: Figure::Memory,
        most_rounds: 2,
        goals: &[amount(24.0)],
        ..BASE
    },
];

/// The cases of these names, in the order of the table; all if there are none.
///
/// # Errors
/// If there is no case of a name.
pub(super) fn named(names: &[String]) -> anyhow::Result<Vec<&'static Case>> {
    let known = |name: &str| CASES.iter().any(|case| case.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!("there is no case {unknown:?}; there are {}", all.join(", "));
    }
    let is_wanted = |case: &&Case| names.is_empty() || names.iter().any(|name| name == case.name);
    Ok(CASES.iter().filter(is_wanted).collect())
}

/// The case of this name, if the table still has it.
pub(super) fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_and_a_wrong_one_shows_the_right_ones() {
        assert_eq!(named(&[]).unwrap().len(), CASES.len());
        let chosen = named(&["h2".to_owned(), "small".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|case| case.name).collect::<Vec<_>>(), ["small", "h2"]);
        let error = named(&["smal".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"smal\"") && error.contains("small, 1k, post"), "{error}");
    }

    #[test]
    fn no_name_stands_twice_and_who_needs_tls_is_set_up_for_it() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
            if let Kind::Peers(shape) = case.contest {
                assert_eq!(shape.tls, case.request.tls, "{}", case.name);
            }
        }
    }
}
