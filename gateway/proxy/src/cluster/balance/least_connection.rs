//! Least connection: the endpoint with the fewest requests in flight, relative to its weight.
//!
//! Up to 31 endpoints all are compared. From 32 on the better of two random ones is taken: nearly as even, and workers
//! that decide at the same moment do not all find the same one. Equals take turns in the order of the schedule, so
//! that an idle cluster is used evenly, by weight.

use super::Choice;
use super::schedule::Schedule;

const EXACT_BELOW: usize = 32;

/// The seat with the least load.
pub(super) fn choose(choice: &Choice<'_>, schedule: &mut Schedule, random: &mut fastrand::Rng) -> usize {
    if choice.usable.seats().len() < EXACT_BELOW {
        exact(choice, schedule)
    } else {
        better_of_two(choice, schedule, random)
    }
}

fn exact(choice: &Choice<'_>, schedule: &mut Schedule) -> usize {
    let mut loads = [f32::INFINITY; EXACT_BELOW];
    let mut least = f32::INFINITY;
    for (seat, load) in loads.iter_mut().enumerate().take(choice.usable.seats().len()) {
        if !choice.is_tried(seat) {
            *load = load_of(choice, seat);
            least = least.min(*load);
        }
    }
    for _ in 0..schedule.length() {
        let seat = schedule.advance();
        if loads[seat] <= least {
            return seat;
        }
    }
    schedule.advance()
}

fn better_of_two(choice: &Choice<'_>, schedule: &Schedule, random: &mut fastrand::Rng) -> usize {
    let first = draw(schedule, random, |seat| !choice.is_tried(seat));
    let second = draw(schedule, random, |seat| seat != first && !choice.is_tried(seat));
    if load_of(choice, second) < load_of(choice, first) { second } else { first }
}

/// A random seat that suits; among 32 and more, a few draws find one.
fn draw(schedule: &Schedule, random: &mut fastrand::Rng, suits: impl Fn(usize) -> bool) -> usize {
    let mut seat = schedule.random(random);
    for _ in 0..8 {
        if suits(seat) {
            break;
        }
        seat = schedule.random(random);
    }
    seat
}

fn load_of(choice: &Choice<'_>, seat: usize) -> f32 {
    let at = &choice.usable.seats()[seat];
    let share = f32::from(at.weight) * choice.warmth(seat);
    choice.usable.endpoint(at).in_flight() as f32 / share.max(f32::MIN_POSITIVE)
}
