//! What was counted before, what is counted now, and what may not be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// So much more than the baseline is a failure. Above what differs from run to run (up to one in a hundred, by the seeds
/// of hash maps and where memory lies), and enough for another version of the C library.
const TOLERANCE: f64 = 0.03;

/// What one case may take at most, as a multiple of another: the goals of the data path that do not depend on a peer.
const GOALS: &[(&str, f64, &str)] = &[
    ("request/h1/5000-services", 1.05, "request/h1"),
    ("request/h1/100000-endpoints", 1.05, "request/h1"),
    ("request/h1/least-connection", 1.03, "request/h1"),
    ("request/h1/2-workers", 1.02, "request/h1/16-connections"),
];

/// Instructions by case, as they stand in the repository.
pub(crate) struct Baseline(BTreeMap<String, u64>);

/// Instructions by case, as they were counted now.
#[derive(Default)]
pub(crate) struct Counted(BTreeMap<String, u64>);

impl Baseline {
    pub(crate) fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.json")
    }

    /// Reads it; it is empty as long as there is none.
    pub(crate) fn read() -> Result<Self> {
        let path = Self::path();
        if !path.exists() {
            return Ok(Self(BTreeMap::new()));
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let cases = serde_json::from_str(&text);
        Ok(Self(cases.with_context(|| format!("{} maps cases to instructions", path.display()))?))
    }

    pub(crate) fn write(&self) -> Result<()> {
        let path = Self::path();
        let text = serde_json::to_string_pretty(&self.0)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes over what was counted; what was not goes if everything was.
    pub(crate) fn bless(&mut self, counted: &Counted, everything: bool) {
        if everything {
            self.0.clear();
        }
        self.0.extend(counted.0.clone());
    }
}

impl Counted {
    /// Adds a case, and tells of it.
    pub(crate) fn add(&mut self, name: &str, instructions: u64, baseline: &Baseline) {
        let change = match baseline.0.get(name) {
            Some(before) => format!("{:+6.2} %", (instructions as f64 / *before as f64 - 1.0) * 100.0),
            None => "new".to_owned(),
        };
        println!("{name:<32} {instructions:>12} instructions  {change}");
        self.0.insert(name.to_owned(), instructions);
    }

    /// What is worse than it may be, for whoever changed something.
    pub(crate) fn faults(&self, baseline: &Baseline) -> Vec<String> {
        let mut faults = self.regressions(baseline);
        let unknown: Vec<_> = self.0.keys().filter(|name| !baseline.0.contains_key(*name)).cloned().collect();
        if !unknown.is_empty() {
            faults.push(format!("no baseline for {}", unknown.join(", ")));
        }
        if !faults.is_empty() {
            faults.push(
                "if this is what the change is worth, take a new baseline with `cargo xtask bench instructions \
                 --bless` and say why in the commit"
                    .to_owned(),
            );
        }
        faults.extend(self.missed_goals());
        faults
    }

    fn regressions(&self, baseline: &Baseline) -> Vec<String> {
        let compared = self.0.iter().filter_map(|(name, now)| Some((name, *baseline.0.get(name)?, *now)));
        let worse = compared.filter(|&(_, before, now)| now as f64 > before as f64 * (1.0 + TOLERANCE));
        let tell = |(name, before, now): (&String, u64, u64)| {
            let more = (now as f64 / before as f64 - 1.0) * 100.0;
            format!("{name} takes {now} instructions, {more:.1} % more than its baseline of {before}")
        };
        worse.map(tell).collect()
    }

    fn missed_goals(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (case, limit, of) in GOALS {
            let (Some(&case_now), Some(&of_now)) = (self.0.get(*case), self.0.get(*of)) else { continue };
            let ratio = case_now as f64 / of_now as f64;
            if ratio > *limit {
                faults.push(format!(
                    "{case} takes {ratio:.3} times the instructions of {of}; the goal is {limit}"
                ));
            } else {
                println!("{case} is {ratio:.3} × {of} (goal {limit})");
            }
        }
        faults
    }
}
