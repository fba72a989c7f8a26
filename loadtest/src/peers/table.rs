//! What came of a case, as a table in Markdown that reads well on a terminal too.

use std::fmt::Write as _;

use super::cases::{Case, Figure};
use super::goals::{self, Verdict};
use super::peer::Peer;
use super::results::{CaseResult, Contestant, Round};

/// The table of a case, with its goals below.
pub(super) fn of(case: &Case, result: &CaseResult) -> String {
    let mut text = format!("### {} (`{}`)\n\n", case.title, case.name);
    if let Some(rate) = result.rate {
        writeln!(text, "{rate:.0} requests a second.\n").expect("a text takes all");
    }
    let rows: Vec<_> =
        result.contestants.iter().map(|it| row(case.figure, it, &result.contestants[0])).collect();
    text.push_str(&lined_up(heads(case.figure), &rows));
    let verdicts = goals::verdicts(case, result);
    if !verdicts.is_empty() {
        text.push('\n');
    }
    for verdict in verdicts {
        writeln!(text, "- {verdict}").expect("a text takes all");
    }
    let troubles =
        result.contestants.iter().flat_map(|it| it.troubles.iter().map(move |why| (&it.label, why)));
    for (label, why) in troubles {
        writeln!(text, "- {label}, {why}").expect("a text takes all");
    }
    text
}

/// One row for each goal of each case.
pub(super) fn of_goals(verdicts: &[(&Case, Verdict)]) -> String {
    let rows: Vec<_> = verdicts
        .iter()
        .map(|(case, verdict)| {
            let Verdict { what, at_most, seen, is_met, is_floor } = verdict;
            let kind = if *is_floor { "must" } else { "goal" };
            let came = if *is_met {
                "met".to_owned()
            } else {
                format!("{:.0} % short", (seen / at_most - 1.0) * 100.0)
            };
            vec![
                case.name.to_owned(),
                what.clone(),
                format!("{kind} ≤ {at_most:.2}"),
                format!("{seen:.2}"),
                came,
            ]
        })
        .collect();
    lined_up(&["case", "compared", "bound", "seen", ""], &rows)
}

fn heads(figure: Figure) -> &'static [&'static str] {
    match figure {
        Figure::Cpu | Figure::P99 => &[
            "",
            "CPU µs/request",
            "range",
            "user",
            "ratio",
            "requests/s",
            "busy",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "RSS MiB",
            "failed",
        ],
        Figure::Memory => &["", "KiB/connection", "range", "RSS MiB", "failed"],
        Figure::Instructions => &["", "instructions/request", "range", "ratio", "failed"],
    }
}

/// The ratio is Portolan's figure to the peer's; in a row of Portolan's own, that row's to the first.
fn row(figure: Figure, contestant: &Contestant, first: &Contestant) -> Vec<String> {
    let value = |digits: usize, value: Option<f64>| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let of = |digits, field: fn(&Round) -> f64| value(digits, contestant.median_of(field));
    let range = |figure, digits: usize| match contestant.range(figure) {
        Some((least, most)) => format!("{least:.digits$}–{most:.digits$}"),
        None => "–".to_owned(),
    };
    let label = contestant.label.clone();
    let failed = contestant.failed().to_string();
    if figure == Figure::Memory {
        let memory = value(1, contestant.median(figure));
        return vec![label, memory, range(figure, 1), of(0, |it| it.resident_mib), failed];
    }
    let ratio = first
        .median(figure)
        .zip(contestant.median(figure))
        .map(|(first, this)| if contestant.peer == Peer::Portolan { this / first } else { first / this });
    if figure == Figure::Instructions {
        let instructions = value(0, contestant.median(figure));
        return vec![label, instructions, range(figure, 0), value(3, ratio), failed];
    }
    vec![
        label,
        value(2, contestant.median(Figure::Cpu)),
        range(Figure::Cpu, 1),
        of(2, |it| it.user_us),
        value(2, ratio),
        of(0, |it| it.requests_per_second),
        format!("{} %", of(0, |it| it.busy * 100.0)),
        of(2, |it| it.p50_us / 1e3),
        of(2, |it| it.p99_us / 1e3),
        of(2, |it| it.p999_us / 1e3),
        of(0, |it| it.resident_mib),
        failed,
    ]
}

/// A table whose columns are as wide as their widest cell; the first is text, the others are numbers.
pub(super) fn lined_up(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let line = |cells: &[&str]| {
        let cells = cells.iter().enumerate().map(|(column, cell)| match column {
            0 => format!(" {cell:<0$} |", width(0)),
            _ => format!(" {cell:>0$} |", width(column)),
        });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: Vec<_> =
        (0..heads.len())
            .map(|column| {
                if column == 0 { "-".repeat(width(0)) } else { format!("{}:", "-".repeat(width(column) - 1)) }
            })
            .collect();
    let mut text = line(heads);
    text.push_str(&line(&rule.iter().map(String::as_str).collect::<Vec<_>>()));
    for row in rows {
        text.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::super::results::for_tests::{case_result, contestant, idle};
    use super::*;

    fn cells(row: &str) -> Vec<&str> {
        row.trim_matches('|').split('|').map(str::trim).collect()
    }

    #[test]
    fn a_case_has_a_row_for_each_and_its_goals_below() {
        let mut traefik = contestant(Peer::Traefik, "Traefik", &[]);
        traefik.troubles.push("round 1: it ended".to_owned());
        let contestants = vec![
            contestant(Peer::Portolan, "Portolan", &[8.0, 9.0, 7.0]),
            contestant(Peer::HaProxy, "HAProxy", &[10.0, 12.5, 9.0]),
            traefik,
        ];
        let text = of(cases::find("small").unwrap(), &case_result("small", contestants));
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 5, "{text}");
        assert!(cells(rows[2]).starts_with(&["Portolan", "8.00", "7.0–9.0", "0.00", "1.00"]), "{text}");
        assert!(cells(rows[3]).starts_with(&["HAProxy", "10.00", "9.0–12.5", "0.00", "0.80"]), "{text}");
        assert!(cells(rows[4]).starts_with(&["Traefik", "–"]), "{text}");
        let widths: Vec<_> = rows.iter().map(|row| row.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        assert!(text.contains("\n- Portolan to HAProxy: 0.80, goal 0.80, met\n"), "{text}");
        assert!(text.ends_with("- Traefik, round 1: it ended\n"), "{text}");
    }

    #[test]
    fn a_variant_of_ours_is_compared_with_the_first() {
        let contestants = vec![
            contestant(Peer::Portolan, "Portolan", &[10.0]),
            contestant(Peer::Portolan, "under churn", &[11.0]),
        ];
        let text = of(cases::find("churn").unwrap(), &case_result("churn", contestants));
        let row = text.lines().find(|line| line.starts_with("| under churn")).unwrap();
        assert_eq!(cells(row)[4], "1.10", "{text}");
    }

    #[test]
    fn memory_has_a_table_of_its_own() {
        let mut ours = contestant(Peer::Portolan, "Portolan", &[]);
        ours.rounds = vec![idle(9.0), idle(11.0)];
        let text = of(cases::find("idle").unwrap(), &case_result("idle", vec![ours]));
        let row = text.lines().find(|line| line.starts_with("| Portolan")).unwrap();
        assert!(cells(row).starts_with(&["Portolan", "10.0", "9.0–11.0"]), "{text}");
    }
}
