//! A picture of before, held until it is needed or not needed any more.

use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot_file::LastPicture;

#[derive(Debug)]
pub(super) struct StandIn {
    /// The source that it stands in for.
    pub(super) source: &'static str,
    pub(super) picture: LastPicture,
    grace: Duration,
    /// When it may be shown; none once that time has come.
    due_at: Option<Instant>,
}

impl StandIn {
    pub(super) fn new(source: &'static str, picture: LastPicture, grace: Duration) -> Self {
        Self { source, picture, grace, due_at: None }
    }

    /// The store begins to run: the sources have the grace to be faster.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due_at = Some(now + self.grace);
    }

    /// When to look again; none if that depends on the sources alone.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Whether its time has come.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.due_at = self.due_at.filter(|at| *at > now);
        self.due_at.is_none()
    }
}
