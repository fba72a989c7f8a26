//! Active checks.

use crate::table::Published;

/// Checks the endpoints of every cluster whose policy asks for it; one for the whole gateway.
#[derive(Debug)]
pub struct Prober {
    published: Published,
}

impl Prober {
    /// A prober of what is published.
    pub fn new(published: Published) -> Self {
        Self { published }
    }

    /// Runs on the control runtime until the publisher ends. Dropping the future ends all checks.
    pub async fn run(mut self) {
        while self.published.generation.changed().await.is_ok() {}
    }
}
