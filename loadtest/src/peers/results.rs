//! Everything that was measured, as it stands in `--json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::cases::{CASES, Figure};
use super::machine;
use super::peer::{Peer, Programs};

/// What was measured, case by case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Results {
    /// How the cases were measured that this command measured itself.
    pub(super) run: Run,
    pub(super) cases: Vec<CaseResult>,
}

/// When, where, of what and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// In UTC.
    pub(super) date: String,
    pub(super) machine: String,
    /// The commit of this program.
    pub(super) commit: String,
    /// The contestants, by what their programs say.
    pub(super) versions: Vec<String>,
    pub(super) rounds: u32,
    pub(super) seconds: u64,
}

/// One case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CaseResult {
    pub(super) name: String,
    pub(super) run: Run,
    /// Requests a second, in the open loop.
    pub(super) rate: Option<f64>,
    /// In the order of their turns.
    pub(super) contestants: Vec<Contestant>,
}

/// One contestant of a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Contestant {
    pub(super) label: String,
    pub(super) peer: Peer,
    pub(super) rounds: Vec<Round>,
    /// Why rounds are missing.
    pub(super) troubles: Vec<String>,
}

/// One measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Round {
    pub(super) requests: u64,
    pub(super) requests_per_second: f64,
    /// CPU time of the proxy for each request, in microseconds.
    pub(super) cpu_us: f64,
    /// The part of it outside of the kernel.
    pub(super) user_us: f64,
    /// How much of its core the proxy used, 0 to 1.
    pub(super) busy: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// Resident memory afterwards, in MiB.
    pub(super) resident_mib: f64,
    /// With idle connections: what each added to the resident memory, in KiB.
    pub(super) connection_kib: Option<f64>,
    /// Under valgrind: instructions in user space for each request.
    #[serde(default)]
    pub(super) instructions: Option<f64>,
    /// Failed requests by kind.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Results {
    /// Those of `before`, for a run that adds to them.
    pub(super) fn new(run: Run, before: Option<Self>) -> Self {
        Self { run, cases: before.map(|before| before.cases).unwrap_or_default() }
    }

    /// Adds a case, or puts it in the place of an older one; they stand in the order of the table of cases.
    pub(super) fn add(&mut self, result: CaseResult) {
        self.cases.retain(|older| older.name != result.name);
        self.cases.push(result);
        self.cases.sort_by_key(|result| CASES.iter().position(|case| case.name == result.name));
    }

    /// Reads what [`Results::write`] wrote.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not from --json", file.display()))
    }

    /// Writes everything into a file.
    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Run {
    pub(super) fn new(programs: &Programs, rounds: u32, seconds: u64) -> Self {
        let git = |arguments: &[&str]| {
            let mut git = std::process::Command::new("git");
            machine::said(git.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"))).unwrap_or_default()
        };
        let mut date = std::process::Command::new("date");
        let date = machine::said(date.args(["--utc", "+%Y-%m-%d %H:%M UTC"])).unwrap_or_default();
        // The evidence itself is no change of what was measured.
        let changes =
            git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs"]);
        let changed = if changes.is_empty() { "" } else { " with changes" };
        let commit = format!("{}{changed}", git(&["rev-parse", "--short", "HEAD"]));
        Self { date, machine: machine::described(), commit, versions: programs.versions(), rounds, seconds }
    }
}

impl Contestant {
    /// The median of a figure over the rounds; nothing if it was never measured.
    pub(super) fn median(&self, figure: Figure) -> Option<f64> {
        median(self.values(figure))
    }

    /// The smallest and the largest.
    pub(super) fn range(&self, figure: Figure) -> Option<(f64, f64)> {
        let values = self.values(figure);
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.into_iter().reduce(f64::max)?))
    }

    /// The median of another value of the rounds.
    pub(super) fn median_of(&self, value: impl Fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(value).collect())
    }

    /// Failed requests of all rounds.
    pub(super) fn failed(&self) -> u64 {
        self.rounds.iter().flat_map(|round| round.errors.values()).sum()
    }

    fn values(&self, figure: Figure) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.figure(figure)).collect()
    }
}

impl Round {
    fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Cpu => (self.requests > 0).then_some(self.cpu_us),
            Figure::P99 => (self.requests > 0).then_some(self.p99_us),
            Figure::Memory => self.connection_kib,
            Figure::Instructions => self.instructions,
        }
    }
}

/// The middle one, or between the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// Results as tests make them.
#[cfg(test)]
pub(super) mod for_tests {
    use super::*;

    pub(in super::super) fn results(cases: Vec<CaseResult>) -> Results {
        Results { run: run(), cases }
    }

    pub(in super::super) fn run() -> Run {
        Run {
            date: "2026-01-02 03:04 UTC".to_owned(),
            machine: "2 cores".to_owned(),
            commit: "abc".to_owned(),
            versions: vec!["HAProxy 2.8.25".to_owned()],
            rounds: 3,
            seconds: 4,
        }
    }

    pub(in super::super) fn case_result(name: &str, contestants: Vec<Contestant>) -> CaseResult {
        CaseResult { name: name.to_owned(), run: run(), rate: None, contestants }
    }

    pub(in super::super) fn contestant(peer: Peer, label: &str, cpu_us: &[f64]) -> Contestant {
        let round =
            |&cpu_us: &f64| Round { requests: 1000, cpu_us, p99_us: cpu_us * 100.0, ..Round::default() };
        Contestant {
            label: label.to_owned(),
            peer,
            rounds: cpu_us.iter().map(round).collect(),
            troubles: Vec::new(),
        }
    }

    pub(in super::super) fn idle(connection_kib: f64) -> Round {
        Round { connection_kib: Some(connection_kib), ..Round::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::for_tests::*;
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let one = contestant(Peer::Nginx, "nginx", &[3.0, 1.0, 2.0]);
        assert_eq!(one.range(Figure::Cpu), Some((1.0, 3.0)));
        assert_eq!(one.median(Figure::Memory), None, "it was not measured");
    }

    #[test]
    fn newer_cases_replace_and_all_stand_in_order() {
        let older = results(vec![case_result("h2c", vec![]), case_result("small", vec![])]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.json");
        older.write(&file).unwrap();
        let mut both = Results::new(run(), Some(Results::read(&file).unwrap()));
        both.add(case_result("1k", vec![]));
        both.add(case_result("small", vec![contestant(Peer::Nginx, "nginx", &[1.0])]));
        assert_eq!(
            both.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(),
            ["small", "1k", "h2c"]
        );
        assert_eq!(both.cases[0].contestants.len(), 1);
    }
}
