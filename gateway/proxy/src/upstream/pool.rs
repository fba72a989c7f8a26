//! Idle connections to endpoints, of one worker.
//!
//! Keyed by the endpoint's process-unique id: a pod that gets the address of another is another endpoint, and never
//! sees a connection that was made to the former. The connection used last is used first, so that the others grow old
//! and are closed. No task waits on them: whether the other side has closed one is seen when it is taken, put back, and
//! at each sweep. They are kept for a shorter time than servers keep theirs, because a request that goes out while
//! the other side closes is lost.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::connection::Connection;
use crate::cluster::{Endpoint, Held};

/// A request that cannot be sent again goes out on a connection idle for longer than this only if there is no choice:
/// a new one is opened instead. The longer a connection is idle, the likelier it is that the other side closes it just
/// now, and no look at the socket can rule that out.
const FRESH_ENOUGH: Duration = Duration::from_secs(1);

/// How long a connection to an endpoint on its way out stays idle at most. Some servers do not end before their clients
/// have closed; one that still gets requests, because nothing else is ready, keeps the connections that carry them.
const DRAINING_KEEP: Duration = Duration::from_millis(500);

/// One worker's idle connections.
#[derive(Default)]
pub(crate) struct Pool {
    shelves: RefCell<HashMap<u64, Shelf, RandomState>>,
}

struct Shelf {
    endpoint: Rc<Held>,
    /// Oldest first.
    idle: Vec<Idle>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    /// The connection to this endpoint that was used last and still seems to be open. For a request that can be sent
    /// again seeming is enough; for others the kernel is asked, and old connections are left alone.
    pub(super) fn take(
        &self,
        endpoint: &Endpoint,
        replayable: bool,
        now: Instant,
    ) -> Option<Box<Connection>> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&endpoint.id())?;
        while let Some(idle) = shelf.idle.pop() {
            if !idle.connection.is_reusable() {
                continue;
            }
            if !replayable && now.saturating_duration_since(idle.since) > FRESH_ENOUGH {
                shelf.idle.push(idle);
                break;
            }
            if replayable || idle.connection.is_quiet_to_the_kernel() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, if it can carry one.
    pub(crate) fn put(&self, endpoint: &Rc<Held>, mut connection: Box<Connection>, now: Instant) {
        if endpoint.0.is_retired() || !connection.is_reusable() {
            return;
        }
        connection.rest();
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves
            .entry(endpoint.0.id())
            .or_insert_with(|| Shelf { endpoint: Rc::clone(endpoint), idle: Vec::new() });
        shelf.idle.push(Idle { connection, since: now });
    }

    /// Closes what has been idle for too long, earlier if its endpoint is on its way out, what the other side has closed,
    /// and all that belongs to endpoints which left their cluster.
    pub(crate) fn sweep(&self, now: Instant, keep: Duration) {
        self.shelves.borrow_mut().retain(|_, shelf| {
            if shelf.endpoint.0.is_retired() {
                return false;
            }
            let keep = if shelf.endpoint.0.is_draining() { keep.min(DRAINING_KEEP) } else { keep };
            shelf.idle.retain(|idle| {
                idle.connection.is_reusable() && now.saturating_duration_since(idle.since) < keep
            });
            !shelf.idle.is_empty()
        });
    }
}
