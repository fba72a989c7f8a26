//! Which request is next.

use std::cell::RefCell;

/// What was drawn for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    /// Whether it goes on a connection of its own.
    pub(super) new_connection: bool,
    /// Its place in the mix.
    pub(super) shot: usize,
}

/// Draws requests by their shares, in every run the same.
#[derive(Debug)]
pub(super) struct Lots {
    random: RefCell<fastrand::Rng>,
    new_connections: f64,
    weights: Vec<f64>,
    total: f64,
}

impl Lots {
    pub(super) fn new(new_connections: f64, weights: Vec<f64>, seed: u64) -> Self {
        let total = weights.iter().sum();
        Self { random: RefCell::new(fastrand::Rng::with_seed(seed)), new_connections, weights, total }
    }

    pub(super) fn draw(&self) -> Draw {
        let new_connection = match self.new_connections {
            none if none <= 0.0 => false,
            all if all >= 1.0 => true,
            share => self.random.borrow_mut().f64() < share,
        };
        Draw { new_connection, shot: self.shot() }
    }

    fn shot(&self) -> usize {
        if self.weights.len() == 1 {
            return 0;
        }
        let mut left = self.random.borrow_mut().f64() * self.total;
        let at = |weight: &f64| {
            left -= weight;
            left < 0.0
        };
        self.weights.iter().position(at).unwrap_or(self.weights.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_out() {
        let lots = Lots::new(0.2, vec![3.0, 0.0, 1.0], 1);
        let draws: Vec<_> = (0..10_000).map(|_| lots.draw()).collect();
        let share = |wanted: &dyn Fn(&Draw) -> bool| draws.iter().filter(|draw| wanted(draw)).count();
        assert!(share(&|draw| draw.new_connection).abs_diff(2000) < 200);
        assert!(share(&|draw| draw.shot == 0).abs_diff(7500) < 200);
        assert_eq!(share(&|draw| draw.shot == 1), 0);
    }
}
