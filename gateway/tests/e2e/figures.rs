//! What a step has measured: one line for people, one JSON object for `cargo xtask walk`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use portolan_testbed::Figures;

/// Prints the line, and hands the figures on where somebody asked for them.
///
/// # Errors
/// When the file of the variable `PORTOLAN_WALK_FIGURES` cannot be written.
#[allow(clippy::disallowed_methods, reason = "the runner of the walk speaks by it")]
pub(crate) fn publish(mut figures: Figures, took: Duration) -> Result<()> {
    figures.took_s = took.as_secs_f64();
    println!("{}", figures.line());
    std::env::var_os("PORTOLAN_WALK_FIGURES").map_or(Ok(()), |path| figures.append(Path::new(&path)))
}

/// A time as the figures show it.
pub(crate) fn time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 1e3 { format!("{milliseconds:.0} ms") } else { format!("{:.1} s", milliseconds / 1e3) }
}
