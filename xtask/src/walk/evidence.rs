//! docs/evidence/rollouts.md: a part for each step between two markers, written anew by a walk of that step. What
//! stands around the parts is written by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use portolan_testbed::{Figure, Figures};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/evidence/rollouts.md");

/// What a document begins with that does not exist yet.
const OPENING: &str = "\
# The life of an application on a real node: what was measured

`cargo xtask walk` makes every figure here, as root on Debian; `--step N` makes those of one step. Each part says when and
on what it was made. *kube-proxy* is a plain ClusterIP Service on kube-proxy (iptables) in the same run, asked from the
node with the same load.
";

/// Writes the parts of these steps.
pub(super) fn write(steps: &[Figures]) -> Result<()> {
    let path = Path::new(DOCUMENT);
    let mut document = if path.exists() { fs::read_to_string(path)? } else { OPENING.to_owned() };
    let surroundings = surroundings()?;
    for step in steps {
        document = with_part(&document, step, &surroundings);
    }
    fs::write(path, document).with_context(|| format!("cannot write {DOCUMENT}"))?;
    println!("written: docs/evidence/rollouts.md");
    Ok(())
}

/// The document with the part of this step in its place, by number.
fn with_part(document: &str, step: &Figures, surroundings: &str) -> String {
    let (begin, end) = (begin(step.step), "<!-- end -->\n");
    let part = format!("{begin}{}{end}", part(step, surroundings));
    if let Some(at) = document.find(&begin)
        && let Some(length) = document[at..].find(end)
    {
        return [&document[..at], &part, &document[at + length + end.len()..]].concat();
    }
    let next = (step.step + 1..=99).find_map(|number| document.find(&self::begin(number)));
    match next {
        Some(at) => format!("{}{part}\n{}", &document[..at], &document[at..]),
        None => format!("{}\n\n{part}", document.trim_end()),
    }
}

fn begin(step: u32) -> String {
    format!("<!-- step {step}: written by cargo xtask walk -->\n")
}

fn part(step: &Figures, surroundings: &str) -> String {
    let Figures { step: number, title, took_s, figures, .. } = step;
    let mut text = format!(
        "## Step {number}: {title}\n\n`cargo xtask walk --step {number}`, {surroundings}, {took_s:.0} s\n\n"
    );
    let beside = figures.iter().any(|figure| figure.kube_proxy.is_some());
    text.push_str(if beside {
        "| | Portolan | kube-proxy |\n|---|--:|--:|\n"
    } else {
        "| | Portolan |\n|---|--:|\n"
    });
    for Figure { what, portolan, kube_proxy } in figures {
        let row = match kube_proxy {
            _ if !beside => format!("| {what} | {portolan} |"),
            other => format!("| {what} | {portolan} | {} |", other.as_deref().unwrap_or_default()),
        };
        writeln!(text, "{row}").expect("a text takes what is written to it");
    }
    text
}

/// Date, commit, machine and versions.
fn surroundings() -> Result<String> {
    let date = said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])?;
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    // The evidence itself is no change of what was measured.
    let sources = ["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs"];
    let changed = !said("git", &sources)?.is_empty();
    let kernel = said("uname", &["-r"])?;
    let processors = std::thread::available_parallelism()?;
    let model = processor_model().unwrap_or_else(|| "unknown processor".to_owned());
    let changed = if changed { " with changes" } else { "" };
    Ok(format!(
        "{date}, commit `{commit}`{changed}, {processors} cores ({model}), Linux {kernel}, {}",
        said("containerd", &["--version"])
            .map_or_else(|_| "containerd".to_owned(), |version| containerd(&version))
    ))
}

fn processor_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// `containerd github.com/containerd/containerd 1.6.20 1.6.20~ds1-1` is containerd 1.6.20.
fn containerd(version: &str) -> String {
    format!("containerd {}", version.split_whitespace().nth(2).unwrap_or_default())
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u32, value: &str) -> Figures {
        let figure = Figure { what: "failed".to_owned(), portolan: value.to_owned(), kube_proxy: None };
        Figures { step: number, title: "a title".to_owned(), full: true, took_s: 1.0, figures: vec![figure] }
    }

    #[test]
    fn parts_stand_in_order_and_are_replaced_alone() {
        let mut document = "# by hand\n".to_owned();
        for figures in [step(3, "three"), step(11, "eleven"), step(2, "two"), step(3, "changed")] {
            document = with_part(&document, &figures, "here");
        }
        let at = |text: &str| document.find(text).unwrap_or_else(|| panic!("{text} is not in {document}"));
        assert!(at("# by hand") < at("two") && at("two") < at("changed") && at("changed") < at("eleven"));
        assert!(!document.contains("three"), "{document}");
        assert_eq!(document.matches("<!-- end -->").count(), 3);
    }

    #[test]
    fn a_column_for_kube_proxy_stands_where_it_has_a_figure() {
        let mut figures = step(4, "0");
        assert!(part(&figures, "here").contains("| failed | 0 |\n"));
        figures.figures.push(Figure {
            what: "bad for".to_owned(),
            portolan: "0 ms".to_owned(),
            kube_proxy: Some("1 s".to_owned()),
        });
        let part = part(&figures, "here");
        assert!(
            part.contains("| failed | 0 |  |\n") && part.contains("| bad for | 0 ms | 1 s |\n"),
            "{part}"
        );
    }
}
