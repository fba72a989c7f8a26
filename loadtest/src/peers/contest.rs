//! A case: all its contestants, round by round.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;

use super::cases::{CASES, Case, Kind, Pace};
use super::measure::Measurement;
use super::peer::Peer;
use super::results::{CaseResult, Contestant, Run};
use super::setup::{Bench, Shape};

/// Holds the cases one after the other.
#[derive(Debug)]
pub(super) struct Contest<'a> {
    bench: &'a Bench,
    run: Run,
    /// Requests a second that HAProxy reached in the first case.
    peak: Option<f64>,
    /// How long the measurements take that are still to come.
    left: Duration,
}

impl<'a> Contest<'a> {
    pub(super) fn new(bench: &'a Bench, run: Run) -> Self {
        Self { bench, run, peak: None, left: Duration::ZERO }
    }

    /// Says what is to come, and remembers it for the progress.
    pub(super) fn announce(&mut self, cases: &[&Case]) -> String {
        let contestants = &self.bench.programs.contestants;
        let each = |case: &&&Case| lineup(case, contestants).len() as u32 * self.rounds(case);
        let measurements: u32 = cases.iter().map(|case| each(&case)).sum();
        self.left = cases.iter().map(|case| self.takes(case) * each(&case)).sum();
        format!("{} cases, {measurements} measurements: {}", cases.len(), minutes(self.left))
    }

    fn rounds(&self, case: &Case) -> u32 {
        self.run.rounds.clamp(case.least_rounds, case.most_rounds.max(case.least_rounds))
    }

    /// How long one measurement takes, by experience.
    fn takes(&self, case: &Case) -> Duration {
        match case.pace {
            Pace::Closed | Pace::HalfOfPeak => self.duration() + Duration::from_secs(3),
            Pace::Idle => Duration::from_secs(10),
            Pace::Counted => Duration::from_secs(30),
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.run.seconds)
    }

    /// Measures every contestant of a case; nothing if none of those that were asked for takes part.
    ///
    /// # Errors
    /// If the half of HAProxy's peak is asked for and HAProxy cannot be measured.
    pub(super) async fn hold(&mut self, case: &'static Case) -> anyhow::Result<Option<CaseResult>> {
        let lineup = lineup(case, &self.bench.programs.contestants);
        if lineup.is_empty() {
            let name = case.name;
            writeln!(std::io::stdout(), "\n{name} is left out: it needs a proxy that --only does not name")?;
            return Ok(None);
        }
        let rate = match case.pace {
            Pace::HalfOfPeak => Some(self.peak().await? / 2.0),
            Pace::Closed | Pace::Idle | Pace::Counted => None,
        };
        let measurement = Measurement { case, rate, duration: self.duration() };
        let (mut contestants, shapes): (Vec<_>, Vec<_>) = lineup.into_iter().unzip();
        let rounds = self.rounds(case);
        let run = Run { rounds, ..self.run.clone() };
        for round in 1..=rounds {
            for (contestant, &shape) in contestants.iter_mut().zip(&shapes) {
                let left = minutes(self.left);
                tell(&format!(
                    "{}, round {round} of {rounds}: {}; {left} to go",
                    case.name, contestant.label
                ));
                self.left = self.left.saturating_sub(self.takes(case));
                match measurement.of(self.bench, contestant.peer, shape).await {
                    Ok(round) => contestant.rounds.push(round),
                    Err(error) => {
                        let why = format!("{error:#}");
                        // What a proxy said may have lines; a table has none.
                        let why: Vec<_> = why.split_whitespace().collect();
                        contestant.troubles.push(format!("round {round}: {}", why.join(" ")));
                    }
                }
            }
        }
        tell("");
        if case.name == CASES[0].name {
            let haproxy = contestants.iter().find(|it| it.peer == Peer::HaProxy);
            self.peak = haproxy.and_then(|it| it.median_of(|round| round.requests_per_second));
        }
        Ok(Some(CaseResult { name: case.name.to_owned(), run, rate, contestants }))
    }

    async fn peak(&mut self) -> anyhow::Result<f64> {
        if self.peak.is_none() {
            tell("HAProxy's peak");
            let measurement = Measurement { case: &CASES[0], rate: None, duration: self.duration() };
            let round = measurement.of(self.bench, Peer::HaProxy, Shape::PLAIN).await;
            self.peak = Some(round.context("HAProxy's peak cannot be measured")?.requests_per_second);
        }
        Ok(self.peak.expect("it was measured just now"))
    }
}

/// The contestants of a case in the order of their turns, each with its shape.
fn lineup(case: &Case, chosen: &[Peer]) -> Vec<(Contestant, Shape)> {
    let contestant = |label: &str, peer| Contestant {
        label: label.to_owned(),
        peer,
        rounds: Vec::new(),
        troubles: Vec::new(),
    };
    if case.pace == Pace::HalfOfPeak && !chosen.contains(&Peer::HaProxy) {
        return Vec::new();
    }
    match case.contest {
        Kind::Peers(shape) => {
            let takes_part = |peer: &&Peer| !shape.tls || peer.takes_tls();
            let peers = chosen.iter().filter(takes_part);
            peers.map(|&peer| (contestant(peer.name(), peer), shape)).collect()
        }
        Kind::Ourselves(variants) if chosen.contains(&Peer::Portolan) => {
            let first = (contestant(Peer::Portolan.name(), Peer::Portolan), Shape::PLAIN);
            let variant = |&(label, shape)| (contestant(label, Peer::Portolan), shape);
            std::iter::once(first).chain(variants.iter().map(variant)).collect()
        }
        Kind::Ourselves(_) => Vec::new(),
    }
}

/// About how long.
fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..100 => format!("about {seconds} seconds"),
        seconds => format!("about {} minutes", seconds.div_ceil(60)),
    }
}

/// What is being done, on one line of a terminal that the next such line replaces.
fn tell(what: &str) {
    let mut err = std::io::stderr().lock();
    if std::io::IsTerminal::is_terminal(&err) {
        // Nobody needs to know that nobody can be told.
        drop(write!(err, "\r\x1b[K{what}"));
        drop(err.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;

    #[test]
    fn peers_run_against_each_other_and_variants_against_the_first_case() {
        let labels = |case: &str, chosen: &[Peer]| -> Vec<String> {
            lineup(cases::find(case).unwrap(), chosen).into_iter().map(|(it, _)| it.label).collect()
        };
        assert_eq!(labels("small", &[Peer::Portolan, Peer::Nginx]), ["Portolan", "nginx"]);
        assert_eq!(labels("table", &Peer::DEFAULT), ["Portolan", "5,000 routes", "100,000 endpoints"]);
        assert_eq!(labels("table", &[Peer::Nginx]), Vec::<String>::new());
        assert_eq!(labels("h2", &[Peer::SpringCloudGateway]), Vec::<String>::new(), "it has no TLS");
        assert_eq!(labels("rate", &[Peer::Portolan]), Vec::<String>::new(), "half of whose peak?");
    }
}
