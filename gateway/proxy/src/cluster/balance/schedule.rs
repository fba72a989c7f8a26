//! The order in which a worker goes round the usable endpoints.
//!
//! With equal weights the order is that of the endpoints. With unequal ones each endpoint stands in it as often as its
//! weight says, spread as evenly as can be, so that a heavy one does not get its share in one burst. The cursor
//! outlives the order: after a change it goes on at the endpoint that would have been next.

use std::cmp::Ordering;

use portolan_model::EndpointKey;

use super::usable::{Seat, Usable};

/// No order is longer than this many slots for each seat, or this many in all for few seats; weights whose sum is
/// larger are scaled down to it, to the nearest slot.
const MOST_SLOTS_PER_SEAT: u64 = 64;
const MOST_SLOTS: u64 = 16_384;

/// A worker's way round the seats of a usable set.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Seats in turn; empty when all weights are equal, and then the turn is that of the seats.
    order: Vec<u32>,
    /// How many slots there are.
    length: usize,
    /// The slot that is next.
    cursor: usize,
}

impl Schedule {
    /// The first order of this worker, starting where no other worker does.
    pub(super) fn starting(usable: &Usable, phase: u64, worker: usize, workers: usize) -> Self {
        let mut schedule = Self::of(usable.seats());
        if schedule.length > 0 {
            let length = schedule.length as u64;
            let own = length * (worker % workers) as u64 / workers as u64;
            schedule.cursor = ((phase % length + own) % length) as usize;
        }
        schedule
    }

    /// Takes over a new usable set and goes on where it was.
    pub(super) fn follow(&mut self, before: &Usable, after: &Usable) {
        let next = (self.length > 0).then(|| before.seated(self.seat_at(self.cursor)).key());
        let part = self.cursor as f64 / self.length.max(1) as f64;
        let mut schedule = Self::of(after.seats());
        if let Some(next) = next {
            schedule.go_on_at(next, part, after);
        }
        *self = schedule;
    }

    /// The seat whose turn it is; the next one is next. There must be a seat.
    pub(super) fn advance(&mut self) -> usize {
        let seat = self.seat_at(self.cursor);
        self.cursor += 1;
        if self.cursor >= self.length {
            self.cursor = 0;
        }
        seat
    }

    /// The seat at a random slot: a seat is as likely as its weight says. There must be a seat.
    pub(super) fn random(&self, random: &mut fastrand::Rng) -> usize {
        self.seat_at(random.usize(..self.length))
    }

    /// How many slots there are.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    fn of(seats: &[Seat]) -> Self {
        let even = seats.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let order = if even { Vec::new() } else { interleave(seats) };
        let length = if even { seats.len() } else { order.len() };
        Self { order, length, cursor: 0 }
    }

    fn seat_at(&self, slot: usize) -> usize {
        if self.order.is_empty() { slot } else { self.order[slot] as usize }
    }

    /// Finds the endpoint that was next, from about where the cursor was; if it went, the one that follows it.
    fn go_on_at(&mut self, next: &EndpointKey, part: f64, usable: &Usable) {
        if self.length == 0 {
            return;
        }
        let start = ((part * self.length as f64) as usize).min(self.length - 1);
        let seats = usable.seats();
        let wanted = match seats.binary_search_by(|seat| usable.endpoint(seat).key().cmp(next)) {
            Ok(seat) => seat,
            Err(seat) if seat < seats.len() => seat,
            Err(_) => 0,
        };
        let found = (0..self.length)
            .map(|step| (start + step) % self.length)
            .find(|&slot| self.seat_at(slot) == wanted);
        self.cursor = found.unwrap_or(start);
    }
}

/// Each seat as often as its weight says, its turns spread evenly over the whole.
fn interleave(seats: &[Seat]) -> Vec<u32> {
    let turns = turns(seats);
    let mut slots = Vec::with_capacity(turns.iter().map(|&turns| turns as usize).sum());
    for (seat, &count) in turns.iter().enumerate() {
        // The k-th turn of a seat stands at (2k + 1) / 2n of the way round.
        slots.extend((0..count).map(|turn| ((2 * turn + 1, 2 * count), seat as u32)));
    }
    slots.sort_by(|&((a, of_a), seat_a), &((b, of_b), seat_b)| match (a * of_b).cmp(&(b * of_a)) {
        Ordering::Equal => seat_a.cmp(&seat_b),
        unequal => unequal,
    });
    slots.into_iter().map(|(_, seat)| seat).collect()
}

/// How often each seat stands in the order.
fn turns(seats: &[Seat]) -> Vec<u64> {
    let divisor = seats.iter().fold(0, |divisor, seat| gcd(divisor, u64::from(seat.weight))).max(1);
    let sum = seats.iter().map(|seat| u64::from(seat.weight) / divisor).sum::<u64>();
    let most = MOST_SLOTS.max(seats.len() as u64 * MOST_SLOTS_PER_SEAT);
    let scale = |weight: u64| if sum <= most { weight } else { ((weight * most + sum / 2) / sum).max(1) };
    seats.iter().map(|seat| scale(u64::from(seat.weight) / divisor)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
