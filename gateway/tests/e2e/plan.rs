//! How much is done: the short form of every test run, or the full numbers of `cargo xtask walk`.

use std::time::Duration;

/// The numbers of this run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Whether these are the full numbers.
    pub(crate) full: bool,
    /// Requests a second of a load.
    pub(crate) rate: f64,
    /// Rollouts of an application in a row.
    pub(crate) rollouts: usize,
    /// Rollouts of Portolan itself.
    pub(crate) own_rollouts: usize,
    /// How long the API server is away.
    pub(crate) outage: Duration,
    /// How long a state is looked at that is expected to last.
    pub(crate) look: Duration,
}

impl Plan {
    /// As the variable `PORTOLAN_WALK` says: `full`, or else short.
    #[allow(
        clippy::disallowed_methods,
        reason = "the test runner speaks by it; it is no setting of the gateway"
    )]
    pub(crate) fn of_this_run() -> Plan {
        let full = std::env::var("PORTOLAN_WALK").is_ok_and(|value| value == "full");
        if full { Plan::FULL } else { Plan::SHORT }
    }

    /// What a promise of the product allows in this run. The full numbers hold it to its word. The short form runs on
    /// whatever machine builds the project, beside other work, where a process may wait for seconds until it runs at all:
    /// it tells what works from what does not, and not how fast.
    pub(crate) fn limit(&self, promise: Duration) -> Duration {
        if self.full { promise } else { promise * 4 + Duration::from_secs(10) }
    }

    /// How far apart two observers of one event may be.
    pub(crate) fn apart(&self) -> Duration {
        if self.full { Duration::from_millis(50) } else { Duration::from_secs(2) }
    }

    const SHORT: Plan = Plan {
        full: false,
        rate: 100.0,
        rollouts: 3,
        own_rollouts: 3,
        outage: Duration::from_secs(30),
        look: Duration::from_secs(3),
    };

    const FULL: Plan = Plan {
        full: true,
        rate: 300.0,
        rollouts: 20,
        own_rollouts: 10,
        outage: Duration::from_secs(300),
        look: Duration::from_secs(15),
    };
}
