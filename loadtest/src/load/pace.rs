//! Tickets at their due times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

/// The right to send one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) due: Instant,
}

/// When to end.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) duration: Option<Duration>,
    pub(super) count: Option<u64>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Limits {
    /// Whether request number `number`, due `offset` after the start, is still to be sent.
    pub(super) fn allow(&self, number: u64, offset: Duration) -> bool {
        !self.stop.load(Ordering::Relaxed)
            && self.count.is_none_or(|count| number < count)
            && self.duration.is_none_or(|duration| offset < duration)
    }
}

/// Sends a ticket at each due time until the limits end it. Blocks its thread; if the channel is full the tickets wait,
/// with the due times they had.
pub(super) fn hand_out(start: Instant, rate: f64, limits: &Limits, tickets: &mpsc::Sender<Ticket>) {
    // A long sleep would not see the stop; a sleep this long costs nothing.
    const LONGEST_SLEEP: Duration = Duration::from_millis(20);
    for number in 0.. {
        let offset = Duration::from_secs_f64(number as f64 / rate);
        let due = start + offset;
        loop {
            if !limits.allow(number, offset) {
                return;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LONGEST_SLEEP));
        }
        if tickets.blocking_send(Ticket { due }).is_err() {
            return;
        }
    }
}
