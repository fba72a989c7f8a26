//! What came of a comparison.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::processes::CpuTime;
use super::super::results::median;
use super::super::table::lined_up;
use super::generator::Answers;
use super::{Comparison, TOLERATED};

/// One side of a comparison.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) label: String,
    pub(super) rounds: Vec<Seen>,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    requests_per_second: f64,
    /// CPU time of the target for each request, in microseconds.
    cpu_us: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    failed: u64,
}

impl Seen {
    pub(super) fn new(answers: Answers, used: CpuTime, duration: Duration) -> Self {
        Self {
            requests_per_second: answers.answered as f64 / duration.as_secs_f64(),
            cpu_us: used.total().as_secs_f64() * 1e6 / answers.answered.max(1) as f64,
            p50_ms: answers.p50_ms,
            p99_ms: answers.p99_ms,
            failed: answers.failed,
        }
    }
}

impl Outcome {
    pub(super) fn new(label: String) -> Self {
        Self { label, rounds: Vec::new() }
    }

    fn median(&self, value: impl Fn(&Seen) -> f64) -> f64 {
        median(self.rounds.iter().map(value).collect()).unwrap_or(f64::NAN)
    }

    fn median_if_said(&self, value: impl Fn(&Seen) -> Option<f64>) -> String {
        let values = self.rounds.iter().filter_map(value).collect();
        median(values).map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
    }

    fn range(&self) -> String {
        let values = || self.rounds.iter().map(|it| it.cpu_us);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        format!("{least:.2}–{most:.2}")
    }

    fn failed(&self) -> u64 {
        self.rounds.iter().map(|it| it.failed).sum()
    }
}

/// The table with its verdicts below, and how many of them are off.
pub(super) fn table(comparison: &Comparison, outcomes: &[Outcome]) -> (String, usize) {
    let heads = ["", "requests/s", "CPU µs/request", "range", "p50 ms", "p99 ms", "failed"];
    let rows: Vec<_> = outcomes.iter().map(row).collect();
    let mut text =
        format!("### {} (`{}`)\n\n{}\n", comparison.title, comparison.name, lined_up(&heads, &rows));
    let mut off = 0;
    let first = &outcomes[0];
    for other in &outcomes[1..] {
        let rate = first.median(|it| it.requests_per_second) / other.median(|it| it.requests_per_second);
        let cpu = first.median(|it| it.cpu_us) / other.median(|it| it.cpu_us);
        let names = format!("{} to {}", first.label, other.label);
        // More requests a second, or less time for each, is what better means.
        for (what, ratio, better) in [("requests/s", rate, rate > 1.0), ("CPU time", cpu, cpu < 1.0)] {
            let is_in = (ratio - 1.0).abs() <= TOLERATED || (comparison.better_is_fine && better);
            off += usize::from(!is_in);
            let verdict = if is_in { "as it should be" } else { "off by more than 10 %" };
            writeln!(text, "- {names}, {what}: {ratio:.2}, {verdict}").expect("a text takes all");
        }
    }
    (text, off)
}

fn row(outcome: &Outcome) -> Vec<String> {
    vec![
        outcome.label.clone(),
        format!("{:.0}", outcome.median(|it| it.requests_per_second)),
        format!("{:.2}", outcome.median(|it| it.cpu_us)),
        outcome.range(),
        outcome.median_if_said(|it| it.p50_ms),
        outcome.median_if_said(|it| it.p99_ms),
        outcome.failed().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::COMPARISONS;
    use super::*;

    fn outcome(label: &str, rates: [f64; 3], cpu_us: f64) -> Outcome {
        let seen = |requests_per_second| Seen {
            requests_per_second,
            cpu_us,
            p50_ms: Some(1.0),
            p99_ms: None,
            failed: 0,
        };
        Outcome { label: label.to_owned(), rounds: rates.map(seen).into() }
    }

    #[test]
    fn medians_within_a_tenth_are_as_they_should_be() {
        let comparison = &COMPARISONS[0];
        let outcomes =
            [outcome("run", [95.0, 96.0, 10.0], 10.0), outcome("wrk", [100.0, 100.0, 100.0], 12.0)];
        let (text, off) = table(comparison, &outcomes);
        assert!(text.contains("- run to wrk, requests/s: 0.95, as it should be\n"), "{text}");
        assert!(text.contains("- run to wrk, CPU time: 0.83, off by more than 10 %\n"), "{text}");
        assert_eq!(off, 1);
        let backend = COMPARISONS.iter().find(|it| it.better_is_fine).unwrap();
        assert_eq!(table(backend, &outcomes).1, 0, "less is better there");
    }
}
