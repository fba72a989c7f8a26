//! What must come of a case, and whether it did.

use std::fmt;

use super::cases::{self, Case, Figure};
use super::peer::Peer;
use super::results::{CaseResult, Contestant, Results};

/// A bound of Portolan's figure in a case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    less: Less,
    /// The ratio, or the amount.
    at_most: f64,
    /// Up to this it counts as met: the rest is noise.
    tolerated: f64,
    rank: Rank,
}

/// What the figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Less {
    /// The same figure of a peer.
    ThanPeer(Peer),
    /// That of the best peer of the case.
    ThanBest,
    /// That of Portolan as in the first case; holds for every other contestant.
    ThanFirst,
    /// The bound itself.
    Than,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// It is aimed at.
    Aim,
    /// It is not negotiable.
    Floor,
}

/// At most this share of the peer's figure.
pub(super) const fn goal(peer: Peer, at_most: f64) -> Goal {
    aim(Less::ThanPeer(peer), at_most)
}

/// At most this share of the peer's figure, and a little more counts as met.
pub(super) const fn near(peer: Peer, at_most: f64, tolerated: f64) -> Goal {
    Goal { tolerated, ..goal(peer, at_most) }
}

/// At most this share of the peer's figure, whatever it takes.
pub(super) const fn floor(peer: Peer, at_most: f64) -> Goal {
    Goal { rank: Rank::Floor, ..goal(peer, at_most) }
}

/// Better than the peer, whatever it takes.
pub(super) const fn better_than(peer: Peer) -> Goal {
    floor(peer, 1.0)
}

/// At most this share of the best peer's figure.
pub(super) const fn of_the_best(at_most: f64) -> Goal {
    aim(Less::ThanBest, at_most)
}

/// At most this share of Portolan's own figure as in the first case.
pub(super) const fn of_the_first(at_most: f64) -> Goal {
    aim(Less::ThanFirst, at_most)
}

/// At most this much.
pub(super) const fn amount(at_most: f64) -> Goal {
    aim(Less::Than, at_most)
}

const fn aim(less: Less, at_most: f64) -> Goal {
    Goal { less, at_most, tolerated: at_most, rank: Rank::Aim }
}

/// A goal with what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// What was compared with what: `Portolan to HAProxy`.
    pub(super) what: String,
    pub(super) at_most: f64,
    /// The ratio or the amount.
    pub(super) seen: f64,
    pub(super) is_met: bool,
    pub(super) is_floor: bool,
}

/// What came of each goal of the case that could be judged: both sides of it must have been measured.
pub(super) fn verdicts(case: &Case, result: &CaseResult) -> Vec<Verdict> {
    case.goals.iter().flat_map(|goal| goal.verdicts(case.figure, result)).collect()
}

impl Goal {
    fn verdicts(&self, figure: Figure, result: &CaseResult) -> Vec<Verdict> {
        let median = |contestant: &Contestant| contestant.median(figure);
        let Some(ours) = result.contestants.iter().find(|it| it.peer == Peer::Portolan) else {
            return Vec::new();
        };
        let others = || result.contestants.iter().filter(|it| it.peer != Peer::Portolan);
        let verdict = |what, seen: f64| Verdict {
            what,
            at_most: self.at_most,
            seen,
            is_met: seen <= self.tolerated,
            is_floor: self.rank == Rank::Floor,
        };
        let ratio = |left: &Contestant, right: &Contestant| {
            let seen = median(left)? / median(right).filter(|&it| it > 0.0)?;
            Some(verdict(format!("{} to {}", left.label, right.label), seen))
        };
        match self.less {
            Less::Than => median(ours).map(|seen| verdict(ours.label.clone(), seen)).into_iter().collect(),
            Less::ThanPeer(peer) => {
                others().find(|it| it.peer == peer).and_then(|it| ratio(ours, it)).into_iter().collect()
            }
            Less::ThanBest => {
                let measured = others().filter(|it| median(it).is_some_and(|it| it > 0.0));
                let best =
                    measured.min_by(|a, b| median(a).partial_cmp(&median(b)).expect("medians are numbers"));
                let verdict = best.and_then(|best| ratio(ours, best));
                verdict
                    .map(|it| Verdict { what: format!("{}, the best", it.what), ..it })
                    .into_iter()
                    .collect()
            }
            Less::ThanFirst => result.contestants.iter().skip(1).filter_map(|it| ratio(it, ours)).collect(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, at_most, seen, is_met, is_floor } = self;
        write!(
            f,
            "{what}: {seen:.2}, {} {at_most:.2}, ",
            if *is_floor { "must be at most" } else { "goal" }
        )?;
        if *is_met {
            f.write_str("met")
        } else {
            write!(f, "missed by {:.0} %", (seen / at_most - 1.0) * 100.0)
        }
    }
}

/// Everything that `--check` fails for: missed goals, requests of Portolan that failed, and whoever did not run.
pub(super) fn faults(results: &Results) -> Vec<String> {
    let mut faults = Vec::new();
    for result in &results.cases {
        let Some(case) = cases::find(&result.name) else { continue };
        let missed = verdicts(case, result).into_iter().filter(|verdict| !verdict.is_met);
        faults.extend(missed.map(|verdict| format!("{}: {verdict}", result.name)));
        for contestant in &result.contestants {
            let label = &contestant.label;
            faults.extend(contestant.troubles.iter().map(|why| format!("{}: {label}: {why}", result.name)));
            let failed = contestant.failed();
            if failed > 0 && contestant.peer == Peer::Portolan {
                faults.push(format!("{}: {label}: {failed} requests failed", result.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::results::for_tests::{case_result, contestant, results};
    use super::*;

    fn case(name: &str) -> &'static Case {
        cases::find(name).expect("the table has it")
    }

    #[test]
    fn medians_are_compared_with_each_peer_that_a_goal_names() {
        let result = case_result(
            "small",
            vec![
                contestant(Peer::Portolan, "Portolan", &[9.0, 8.5, 30.0]),
                contestant(Peer::HaProxy, "HAProxy", &[10.0, 10.0, 10.0]),
                contestant(Peer::Nginx, "nginx", &[20.0]),
            ],
        );
        let verdicts = verdicts(case("small"), &result);
        let seen: Vec<_> = verdicts.iter().map(|it| (it.at_most, it.is_met, it.is_floor)).collect();
        assert_eq!(
            seen,
            [(0.80, false, false), (0.90, true, true), (1.0, true, true)],
            "Envoy was not measured"
        );
        assert_eq!(verdicts[0].to_string(), "Portolan to HAProxy: 0.90, goal 0.80, missed by 12 %");
        assert_eq!(verdicts[2].to_string(), "Portolan to nginx: 0.45, must be at most 1.00, met");
    }

    #[test]
    fn the_best_peer_is_the_one_to_beat() {
        let result = case_result(
            "1m",
            vec![
                contestant(Peer::Portolan, "Portolan", &[600.0]),
                contestant(Peer::HaProxy, "HAProxy", &[800.0]),
                contestant(Peer::Traefik, "Traefik", &[500.0]),
            ],
        );
        let verdicts = verdicts(case("1m"), &result);
        assert_eq!(verdicts[0].to_string(), "Portolan to Traefik, the best: 1.20, goal 1.00, missed by 20 %");
    }

    #[test]
    fn variants_are_compared_with_the_first_and_memory_with_the_bound() {
        let result = case_result(
            "table",
            vec![
                contestant(Peer::Portolan, "Portolan", &[10.0]),
                contestant(Peer::Portolan, "5,000 routes", &[10.4]),
                contestant(Peer::Portolan, "100,000 endpoints", &[11.0]),
            ],
        );
        let met: Vec<_> = verdicts(case("table"), &result).iter().map(|it| it.is_met).collect();
        assert_eq!(met, [true, false]);
        let mut ours = contestant(Peer::Portolan, "Portolan", &[]);
        ours.rounds.push(super::super::results::for_tests::idle(9.5));
        let verdicts = verdicts(case("idle"), &case_result("idle", vec![ours]));
        assert_eq!(verdicts[0].to_string(), "Portolan: 9.50, goal 10.00, met");
    }

    #[test]
    fn a_check_fails_for_missed_goals_for_failures_and_for_who_did_not_run() {
        let mut ours = contestant(Peer::Portolan, "Portolan", &[9.5]);
        ours.rounds[0].errors.insert("reset".to_owned(), 2);
        let mut theirs = contestant(Peer::HaProxy, "HAProxy", &[10.0]);
        theirs.rounds[0].errors.insert("timeout".to_owned(), 2);
        theirs.troubles.push("it ended".to_owned());
        let faults = faults(&results(vec![case_result("small", vec![ours, theirs])]));
        assert_eq!(
            faults,
            [
                "small: Portolan to HAProxy: 0.95, goal 0.80, missed by 19 %",
                "small: Portolan to HAProxy: 0.95, must be at most 0.90, missed by 6 %",
                "small: Portolan: 2 requests failed",
                "small: HAProxy: it ended",
            ]
        );
    }
}
