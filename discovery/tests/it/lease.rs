//! Who holds the Lease.

use std::sync::Arc;
use std::time::Duration;

use portolan_discovery::kube::lease::{Election, LeaseSettings};
use portolan_model::Finding;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::api_server::{ApiServer, Ask, Fault, LEASES};

struct Candidate {
    findings: watch::Receiver<Arc<Vec<Finding>>>,
    holding: watch::Receiver<bool>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn settings(identity: &str) -> LeaseSettings {
    LeaseSettings {
        length: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry: Duration::from_millis(200),
        ..LeaseSettings::new("own", "portolan", identity)
    }
}

impl Candidate {
    fn new(server: &ApiServer, identity: &str) -> Self {
        let (election, holding) = Election::new(server.client(), settings(identity));
        let (shutdown, findings) = (CancellationToken::new(), election.findings());
        let task = tokio::spawn(election.run(shutdown.clone()));
        Self { findings, holding, shutdown, task }
    }

    async fn holds(&mut self, expected: bool) {
        let wait = self.holding.wait_for(|holding| *holding == expected);
        assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "never: holding {expected}");
    }
}

fn lease(server: &ApiServer) -> Value {
    server.object(LEASES, "own", "portolan").unwrap()
}

#[tokio::test]
async fn one_holds_it_and_hands_it_over_at_its_end() {
    let server = ApiServer::start().await;
    let mut first = Candidate::new(&server, "a");
    first.holds(true).await;
    assert_eq!(lease(&server)["spec"]["holderIdentity"], "a");
    let mut second = Candidate::new(&server, "b");
    // Longer than the Lease lasts without a renewal.
    let watching = Instant::now();
    while watching.elapsed() < Duration::from_millis(3500) {
        server.wait_for_one_more(LEASES, Ask::Get).await;
        assert!(*first.holding.borrow() && !*second.holding.borrow());
    }
    first.shutdown.cancel();
    let released = Instant::now();
    second.holds(true).await;
    assert!(released.elapsed() < Duration::from_millis(2700), "it did not wait for the Lease to run out");
    first.task.await.unwrap();
    assert!(!*first.holding.borrow());
    assert_eq!(lease(&server)["spec"]["leaseTransitions"], 2);
}

#[tokio::test]
async fn who_cannot_renew_lets_go_before_another_may_take_it() {
    let mut server = ApiServer::start().await;
    let mut first = Candidate::new(&server, "a");
    first.holds(true).await;
    server.stop().await;
    let away = Instant::now();
    first.holds(false).await;
    assert!(away.elapsed() < Duration::from_secs(3), "it let go only after {:?}", away.elapsed());
    server.resume().await;
    first.holds(true).await;
    // One that dies without a word: its Lease runs out by the other's clock.
    first.task.abort();
    let died = Instant::now();
    let mut second = Candidate::new(&server, "b");
    second.holds(true).await;
    assert!(died.elapsed() >= Duration::from_millis(2990), "taken after {:?}", died.elapsed());
}

#[tokio::test]
async fn a_holder_that_hangs_lets_go_too() {
    let server = ApiServer::start().await;
    let mut first = Candidate::new(&server, "a");
    first.holds(true).await;
    server.fail(LEASES, &[Ask::Get], Fault::Hang);
    let hung = Instant::now();
    first.holds(false).await;
    assert!(hung.elapsed() < Duration::from_secs(3), "it let go only after {:?}", hung.elapsed());
    server.heal();
    first.holds(true).await;
}

#[tokio::test]
async fn without_the_right_nobody_holds_it_and_a_finding_says_so() {
    let server = ApiServer::start().await;
    server.fail(LEASES, &[Ask::Get], Fault::Status(403, "leases is forbidden", None));
    let mut candidate = Candidate::new(&server, "a");
    server.wait_for_one_more(LEASES, Ask::Get).await;
    server.wait_for_one_more(LEASES, Ask::Get).await;
    assert!(!*candidate.holding.borrow());
    let denied = candidate.findings.wait_for(|findings| !findings.is_empty()).await.unwrap()[0].clone();
    assert_eq!(denied.reason, "AccessDenied");
    assert_eq!(denied.field, "leases.coordination.k8s.io in namespace own");
    assert!(denied.message.contains("writes no Events"), "{denied}");
    server.heal();
    candidate.holds(true).await;
    let granted = candidate.findings.wait_for(|findings| findings.is_empty());
    assert!(timeout(Duration::from_secs(10), granted).await.is_ok(), "the finding stays");
    candidate.shutdown.cancel();
    candidate.task.await.unwrap();
}
