//! `docs/configuration.md`, made from the table of settings.

use std::fmt::Write;

use super::{SPECS, Scope, Spec};

const HEAD: &str = "\
# Configuration

Every setting is a flag of `portolan run`, an environment variable and a key of the file given with `--config`. A flag
beats a variable, which beats the file, which beats the default. Lists are given by repeating the flag, with commas in a
variable, and as a YAML list in the file. Times carry their unit: `500ms`, `10s`, `5m`.

A `live` setting takes effect at once when it changes in the ConfigMap named by `--config-map`; a changed `startup`
setting is reported as a finding and takes effect at the next start.

This page is generated: `cargo run -p portolan -- settings > docs/configuration.md`.
";

/// The page as Markdown.
pub(crate) fn markdown() -> String {
    SPECS.iter().fold(HEAD.to_owned(), |mut page, spec| {
        describe(&mut page, spec).expect("writing to a String succeeds");
        page
    })
}

fn describe(page: &mut String, spec: &Spec) -> std::fmt::Result {
    let scope = match spec.scope {
        Scope::Startup => "startup",
        Scope::Live => "live",
    };
    let default = match spec.default {
        "" => "none".to_owned(),
        default => format!("`{default}`"),
    };
    let repeated = if spec.list { ", may be repeated" } else { "" };
    writeln!(page, "\n## `{}`\n", spec.name)?;
    for line in spec.help.lines() {
        writeln!(page, "{}", line.trim())?;
    }
    // A switch takes its value behind an equals sign only: alone it means true.
    let before_value = if spec.switch { "[=" } else { " " };
    let after_value = if spec.switch { "]" } else { "" };
    writeln!(page, "\n- flag: `--{}{before_value}{}{after_value}`{repeated}", spec.name, spec.placeholder)?;
    writeln!(page, "- variable: `{}`", spec.variable())?;
    writeln!(page, "- default: {default}")?;
    writeln!(page, "- takes effect: {scope}")
}
