//! The document with the tables: written between two markers; what stands around them is written by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use super::cases::{self, Case};
use super::goals;
use super::results::Results;
use super::table;

const BEGIN: &str = "<!-- written by portolan-loadtest peers -->\n";
const END: &str = "<!-- end -->\n";

/// Writes the tables into the document; a new one gets the markers and no more.
///
/// # Errors
/// If it cannot be read or written, or has no markers.
pub(super) fn write(file: &Path, results: &Results) -> anyhow::Result<()> {
    let before = if file.exists() {
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    } else {
        format!("{BEGIN}{END}")
    };
    let after =
        with_tables(&before, results).with_context(|| format!("cannot write into {}", file.display()))?;
    fs::write(file, after).with_context(|| format!("cannot write {}", file.display()))
}

fn with_tables(document: &str, results: &Results) -> anyhow::Result<String> {
    let begin = document.find(BEGIN).map(|at| at + BEGIN.len());
    let Some((begin, length)) = begin.and_then(|at| Some((at, document[at..].find(END)?))) else {
        bail!("it has no line `{}` with a line `{}` below", BEGIN.trim(), END.trim());
    };
    Ok([&document[..begin], &tables(results), &document[begin + length..]].concat())
}

fn tables(results: &Results) -> String {
    let measured: Vec<_> =
        results.cases.iter().filter_map(|result| Some((cases::find(&result.name)?, result))).collect();
    let verdicts: Vec<(&Case, _)> = measured
        .iter()
        .flat_map(|&(case, result)| goals::verdicts(case, result).into_iter().map(move |it| (case, it)))
        .collect();
    let mut versions: Vec<&str> = Vec::new();
    // Parts of the table may have been measured with fewer contestants.
    for version in measured.iter().flat_map(|(_, result)| &result.run.versions) {
        if !versions.contains(&version.as_str()) {
            versions.push(version);
        }
    }
    let mut text = format!(
        "\nMachine: {}. {}.\n\n## Goals\n\n{}\n## Cases\n",
        results.run.machine,
        versions.join(", "),
        table::of_goals(&verdicts)
    );
    for (case, result) in measured {
        let run = &result.run;
        let command = format!(
            "cargo run --release -p portolan-loadtest -- peers --rounds {} --seconds {} --case {}",
            run.rounds, run.seconds, case.name
        );
        let table = table::of(case, result);
        let (title, rest) = table.split_once("\n\n").unwrap_or((&table, ""));
        write!(text, "\n{title}\n\n`{command}`, {}, commit `{}`\n\n{rest}", run.date, run.commit)
            .expect("a text takes all");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::super::peer::Peer;
    use super::super::results::for_tests::{case_result, contestant, results};
    use super::*;

    #[test]
    fn what_is_written_by_hand_stays() {
        let ours = contestant(Peer::Portolan, "Portolan", &[9.0]);
        let theirs = contestant(Peer::HaProxy, "HAProxy", &[10.0]);
        let results = results(vec![case_result("small", vec![ours, theirs])]);
        let document = format!("# By hand\n\n{BEGIN}old\n{END}\nBelow\n");
        let once = with_tables(&document, &results).unwrap();
        assert!(
            once.starts_with("# By hand\n") && once.ends_with("\nBelow\n") && !once.contains("old"),
            "{once}"
        );
        assert!(once.contains("| small | Portolan to HAProxy | goal ≤ 0.80 | 0.90 | 12 % short |"), "{once}");
        assert!(once.contains("-- peers --rounds 3 --seconds 4 --case small`, 2026-01-02"), "{once}");
        assert_eq!(with_tables(&once, &results).unwrap(), once);
    }

    #[test]
    fn a_document_without_the_markers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("performance.md");
        fs::write(&file, "# By hand\n").unwrap();
        let error = format!("{:#}", write(&file, &results(vec![])).unwrap_err());
        assert!(error.contains("performance.md") && error.contains("<!-- end -->"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "# By hand\n");
    }
}
