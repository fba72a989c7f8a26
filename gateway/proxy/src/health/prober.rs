//! Active checks: every endpoint of a cluster whose policy asks for it is asked now and then whether it works.
//!
//! One prober for the whole gateway, on the control runtime, so that an endpoint is not asked once per worker. It
//! follows the published tables: an endpoint that left is asked no more, a new one counts as healthy until its checks
//! fail. So many bad answers in a row as the policy says make it [`crate::cluster::Health::Failed`], so many good ones
//! healthy again; other than with passive ejection any number of endpoints may fail.
//!
//! Checks are spread: the first comes at a random moment within the interval, later ones an interval (give or take a
//! tenth) after the start of the one before. At most 128 run at a time; beyond that they come late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use imbl::ordmap::DiffItem;
use portolan_model::{ClusterId, HealthCheck, Readiness, Snapshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::check::Question;
use crate::cluster::{Cluster, ClusterState, Endpoint};
use crate::table::Published;

/// So many checks run at a time; the others wait, which bounds sockets and memory.
const MOST_AT_ONCE: usize = 128;

/// Checks the endpoints of every cluster whose policy asks for it.
pub struct Prober {
    published: Published,
    seen: Arc<Snapshot>,
    /// The endpoints that are checked, by cluster.
    clusters: BTreeMap<ClusterId, Vec<u64>>,
    checks: BTreeMap<u64, Check>,
    /// When the checks that do not run are due.
    due: BTreeSet<(Instant, u64)>,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
}

/// An endpoint that is checked.
struct Check {
    endpoint: Arc<Endpoint>,
    cluster: Arc<Cluster>,
    policy: HealthCheck,
    question: Arc<Question>,
    /// When it is due; none while it runs.
    due: Option<Instant>,
    good_in_a_row: u32,
    bad_in_a_row: u32,
}

struct Answer {
    endpoint: u64,
    began: Instant,
    is_good: bool,
}

impl Prober {
    /// A prober of what is published.
    pub fn new(published: Published) -> Self {
        Self {
            published,
            seen: Arc::default(),
            clusters: BTreeMap::new(),
            checks: BTreeMap::new(),
            due: BTreeSet::new(),
            running: FuturesUnordered::new(),
        }
    }

    /// Runs until the publisher is gone. Dropping the future ends all checks; what they found stays.
    pub async fn run(mut self) {
        self.follow();
        loop {
            let next = self.next_due();
            tokio::select! {
                changed = self.published.generation.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return,
                },
                Some(answer) = self.running.next(), if !self.running.is_empty() => self.take(&answer),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.start_due(),
            }
        }
    }

    /// When the next check may start.
    fn next_due(&self) -> Option<Instant> {
        let may_start = self.running.len() < MOST_AT_ONCE;
        self.due.first().filter(|_| may_start).map(|(due, _)| *due)
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while self.next_due().is_some_and(|due| due <= now) {
            let Some((_, endpoint)) = self.due.pop_first() else { return };
            if let Some(check) = self.checks.get_mut(&endpoint) {
                check.due = None;
                self.running.push(check.run(now));
            }
        }
    }

    fn take(&mut self, answer: &Answer) {
        // An endpoint that left meanwhile has no check any more.
        if let Some(check) = self.checks.get_mut(&answer.endpoint) {
            check.note(answer.is_good);
            let due = answer.began + check.policy.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            check.due = Some(due);
            self.due.insert((due, answer.endpoint));
        }
    }
}

// === following the tables ===

impl Prober {
    fn follow(&mut self) {
        self.published.generation.borrow_and_update();
        let table = self.published.table.load_full();
        let before = std::mem::replace(&mut self.seen, Arc::clone(table.snapshot()));
        for change in before.clusters.diff(&table.snapshot().clusters) {
            match change {
                DiffItem::Add(id, _) | DiffItem::Update { new: (id, _), .. } => {
                    match table.clusters().find(id) {
                        Some(cluster) => self.follow_cluster(cluster),
                        None => self.forget_cluster(id),
                    }
                }
                DiffItem::Remove(id, _) => self.forget_cluster(id),
            }
        }
    }

    fn follow_cluster(&mut self, cluster: &Arc<Cluster>) {
        let state = cluster.state();
        let before = self.clusters.remove(cluster.id()).unwrap_or_default();
        let mut now_checked = Vec::new();
        if let Some((policy, question)) = asked_of(cluster, &state) {
            for (endpoint, _) in state.members().filter(|(_, said)| said.readiness != Readiness::NotReady) {
                now_checked.push(endpoint.id());
                self.follow_endpoint(cluster, endpoint, policy, &question);
            }
        }
        let kept = now_checked.iter().copied().collect::<BTreeSet<_>>();
        for endpoint in before.into_iter().filter(|endpoint| !kept.contains(endpoint)) {
            self.forget(endpoint);
        }
        if !now_checked.is_empty() {
            self.clusters.insert(cluster.id().clone(), now_checked);
        }
    }

    fn follow_endpoint(
        &mut self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        policy: &HealthCheck,
        question: &Arc<Question>,
    ) {
        let id = endpoint.id();
        if let Some(check) = self.checks.get_mut(&id) {
            if check.policy != *policy {
                check.policy = policy.clone();
                check.question = Arc::clone(question);
            }
            return;
        }
        let due = Instant::now() + policy.interval.mul_f64(fastrand::f64());
        self.due.insert((due, id));
        let check = Check {
            endpoint: Arc::clone(endpoint),
            cluster: Arc::clone(cluster),
            policy: policy.clone(),
            question: Arc::clone(question),
            due: Some(due),
            good_in_a_row: 0,
            bad_in_a_row: 0,
        };
        self.checks.insert(id, check);
    }

    fn forget_cluster(&mut self, id: &ClusterId) {
        for endpoint in self.clusters.remove(id).unwrap_or_default() {
            self.forget(endpoint);
        }
    }

    /// What is not checked any more is not held against the endpoint either.
    fn forget(&mut self, endpoint: u64) {
        if let Some(check) = self.checks.remove(&endpoint) {
            if let Some(due) = check.due {
                self.due.remove(&(due, endpoint));
            }
            check.set_failed(false);
        }
    }
}

/// What the policy asks of the endpoints; nothing if it does not say so in a way that can be asked.
fn asked_of<'a>(cluster: &Cluster, state: &'a ClusterState) -> Option<(&'a HealthCheck, Arc<Question>)> {
    let policy = state.policy.health_check.as_ref()?;
    match Question::new(&policy.probe, &state.source) {
        Ok(question) => Some((policy, Arc::new(question))),
        Err(problem) => {
            tracing::warn!(cluster = %cluster.id(), %problem, "endpoints cannot be checked");
            None
        }
    }
}

// === impl Check ===

impl Check {
    fn run(&self, began: Instant) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let (question, address) = (Arc::clone(&self.question), self.endpoint.address());
        let (endpoint, limit) = (self.endpoint.id(), self.policy.timeout);
        Box::pin(async move {
            let is_good = timeout(limit, question.ask(address)).await.unwrap_or(false);
            Answer { endpoint, began, is_good }
        })
    }

    fn note(&mut self, is_good: bool) {
        if is_good {
            self.bad_in_a_row = 0;
            self.good_in_a_row = self.good_in_a_row.saturating_add(1);
        } else {
            self.good_in_a_row = 0;
            self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        }
        if self.bad_in_a_row >= self.policy.unhealthy_threshold.max(1) {
            self.set_failed(true);
        } else if self.good_in_a_row >= self.policy.healthy_threshold.max(1) {
            self.set_failed(false);
        }
    }

    fn set_failed(&self, failed: bool) {
        if self.endpoint.set_check_failed(failed) {
            self.cluster.touch();
            let (cluster, endpoint) = (self.cluster.id(), self.endpoint.address());
            tracing::info!(%cluster, %endpoint, failed, "active checks changed their verdict");
        }
    }
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("checks", &self.checks.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
