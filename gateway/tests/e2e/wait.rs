//! Waiting for what nobody tells. Where kubectl can wait or watch, that is used instead.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Asks every 20 ms until there is something. An error of the asking ends it.
///
/// # Errors
/// When nothing came in time; the message says what was waited for.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(it) = ask()? {
            return Ok(it);
        }
        if begun.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lets time pass: for looking at a state that is expected to last.
pub(crate) fn look(time: Duration) {
    std::thread::sleep(time);
}
