//! Round robin: each usable endpoint in turn, by weight.

use super::Choice;
use super::schedule::Schedule;

/// The seat whose turn it is. One that was tried, or that is new and declines by slow start, is passed over; after two
/// rounds of that it is taken all the same.
pub(super) fn choose(choice: &Choice<'_>, schedule: &mut Schedule, random: &mut fastrand::Rng) -> usize {
    let mut untried = None;
    for _ in 0..2 * schedule.length() {
        let seat = schedule.advance();
        if choice.is_tried(seat) {
            continue;
        }
        if choice.is_warm(seat, random) {
            return seat;
        }
        untried = Some(seat);
    }
    untried.unwrap_or_else(|| schedule.advance())
}
