//! What is shown on a terminal while it runs, and how it is ended early.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context;
use portolan_loadtest::measure::{Measured, Running};
use tokio::time::{MissedTickBehavior, interval};

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(200);
/// The width of the bar.
const BAR: usize = 20;

/// Waits for the end; Ctrl-C ends it early, and what was measured until then counts.
///
/// # Errors
/// If the generator itself fails.
pub(super) fn wait(running: Running) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut stopped = false;
        let mut due = interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !running.is_over() {
            tokio::select! {
                _ = due.tick() => tell(&line(&running)),
                signal = interrupted.as_mut(), if !stopped => {
                    signal.context("listening for Ctrl-C")?;
                    running.stop();
                    stopped = true;
                }
            }
        }
        tell("");
        anyhow::Ok(())
    })?;
    running.wait()
}

fn line(running: &Running) -> String {
    let (answered, failed) = running.so_far();
    shown(running.share_done(), answered, failed)
}

fn shown(share: f64, answered: u64, failed: u64) -> String {
    let full = (share * BAR as f64) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR.saturating_sub(full)));
    format!("[{bar}] {:>3.0} %  {answered} answered, {failed} failed", share * 100.0)
}

/// On one line of a terminal that the next such line replaces; elsewhere nothing.
fn tell(what: &str) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // Nobody needs to know that nobody can be told.
        drop(write!(err, "\r\x1b[K{what}"));
        drop(err.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert_eq!(shown(0.0, 0, 0), "[....................]   0 %  0 answered, 0 failed");
        assert_eq!(shown(0.5, 70, 1), "[##########..........]  50 %  70 answered, 1 failed");
        assert_eq!(shown(1.0, 9, 0), "[####################] 100 %  9 answered, 0 failed");
    }
}
