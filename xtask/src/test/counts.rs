//! How many tests passed and failed, and what the failed ones said, read from what `cargo test` prints.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::iter::Sum;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::complaints::Complaints;

/// Tests that ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// What came of a `cargo test …`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results {
    pub(crate) counts: Counts,
    /// The messages of what failed, line by line.
    pub(crate) complaints: Vec<String>,
}

/// Runs `cargo test …`, shows its output as it comes and counts.
pub(crate) fn run(command: &mut Command) -> Result<Results> {
    let shown = format!("{command:?}");
    // One pipe for both, in their order: what a test says that captures nothing comes as an error output.
    let (output, input) = std::io::pipe()?;
    command.stdout(input.try_clone()?).stderr(input);
    let child = command.spawn();
    // The command has its own copies of the pipe's other end, and with them open the output would not end.
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut child = child.with_context(|| format!("cannot run {shown}"))?;
    let (mut counts, mut complaints) = (Counts::default(), Complaints::default());
    for line in BufReader::new(output).split(b'\n') {
        // A test may print anything.
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        counts = counts + Counts::in_line(&line);
        complaints.hear(&line);
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(Results { counts, complaints: Vec::new() });
    }
    // Not compiled, or a test binary died without a result.
    counts.failed = counts.failed.max(1);
    Ok(Results { counts, complaints: complaints.lines() })
}

impl Counts {
    /// What a line `test result: ok. 3 passed; 0 failed; …` says; nothing for any other line.
    fn in_line(line: &str) -> Counts {
        let Some((_, rest)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return Counts::default();
        };
        let number = |what: &str| {
            rest.split("; ").find_map(|part| part.strip_suffix(what)).and_then(|number| number.parse().ok())
        };
        Counts { passed: number(" passed").unwrap_or(0), failed: number(" failed").unwrap_or(0) }
    }
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

impl Sum for Results {
    fn sum<I: Iterator<Item = Results>>(all: I) -> Results {
        all.fold(Results::default(), |mut sum, results| {
            sum.complaints.extend(results.complaints);
            Results { counts: sum.counts + results.counts, ..sum }
        })
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), |sum, counts| sum + counts)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} passed {:>3} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_result_lines_and_nothing_else() {
        let good =
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.02s";
        assert_eq!(Counts::in_line(good), Counts { passed: 12, failed: 0 });
        let bad =
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(Counts::in_line(bad), Counts { passed: 1, failed: 2 });
        assert_eq!(Counts::in_line("test names::tests::3 passed; ... ok"), Counts::default());
        assert_eq!(Counts::in_line("running 3 tests"), Counts::default());
    }

    #[test]
    fn a_command_that_fails_without_a_result_counts_as_failed() {
        let results = run(Command::new("sh").args(["-c", "echo not a test; exit 3"])).unwrap();
        assert_eq!(results.counts, Counts { passed: 0, failed: 1 });
    }

    #[test]
    fn sums_over_several_binaries() {
        let line =
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s";
        let results = run(Command::new("sh").args(["-c", &format!("echo '{line}'; echo '{line}'")])).unwrap();
        assert_eq!(results.counts, Counts { passed: 4, failed: 0 });
    }

    #[test]
    fn a_panic_on_the_error_output_is_repeated() {
        let script = "echo \"thread 'a' (7) panicked at a.rs:1:2:\" >&2; echo too late >&2; exit 101";
        let results = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(results.complaints, ["thread 'a' (7) panicked at a.rs:1:2:", "too late"]);
    }
}
