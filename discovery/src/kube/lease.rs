//! Which replica does what only one may do: the holder of a Lease (`coordination.k8s.io/v1`).
//!
//! The rules are those of Kubernetes' own components. A holder renews every few seconds; who does not hold it takes it
//! when it has seen no renewal for the Lease's length, by its own clock: the times written in the Lease are never
//! compared with a local clock, so clocks may differ. Each write carries the version that was read, so of two that
//! take it at once one fails. A holder that cannot renew lets go before others may take over.
//!
//! Between two replicas nothing more is promised: a holder that stalls right after looking may act once after another took over. What is done
//! under the Lease must bear that (Events do).
//!
//! Rights: `create` on `leases` in the own namespace (it cannot be limited to a name), `get` and `update` on this one.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use portolan_model::Finding;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::access::{Access, Wanted};
use super::backoff::random_between;
use super::request::{Failure, from_call};

/// How an election is held.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// The Lease's namespace: the own one.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who this is: the pod's name, or anything else that no other replica has.
    pub identity: String,
    /// How long the Lease holds after a renewal.
    pub length: Duration,
    /// A holder that could not renew for this long lets go; shorter than the length.
    pub renew_deadline: Duration,
    /// From one attempt to the next.
    pub retry: Duration,
}

impl LeaseSettings {
    /// The usual times: 15 s, 10 s and 2 s, as Kubernetes' own components have them.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            length: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A candidate for a Lease.
#[derive(Debug)]
pub struct Election {
    api: LeaseApi,
    settings: LeaseSettings,
    holding: watch::Sender<bool>,
    /// The version last seen and since when, by the local clock.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
    access: Access,
}

struct LeaseApi(Api<Lease>);

impl std::fmt::Debug for LeaseApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseApi")
    }
}

impl Election {
    /// A candidate, and whether it holds the Lease. Nothing happens before [`Election::run`].
    pub fn new(client: Client, settings: LeaseSettings) -> (Self, watch::Receiver<bool>) {
        let (holding, receiver) = watch::channel(false);
        let api = LeaseApi(Api::namespaced(client, &settings.namespace));
        let access = Access::new(Wanted {
            resource: "leases.coordination.k8s.io",
            verbs: "get, create and update",
            meaning: "This replica writes no Events",
            granted_by: "deploy/base",
        });
        (Self { api, settings, holding, seen: None, renewed: None, access }, receiver)
    }

    /// The right that is missing, while it is.
    pub fn findings(&self) -> watch::Receiver<Arc<Vec<Finding>>> {
        self.access.findings()
    }

    /// Takes and renews the Lease until `shutdown`, then lets go of it, so that another replica need not wait.
    /// Without the rights, it goes on trying and never holds it. Dropping the future lets the Lease run out.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.attempt_and_wait()).await.is_some() {}
        if self.is_holding() {
            self.holding.send_replace(false);
            match self.release().await {
                Ok(()) => info!(lease = self.settings.name, "lease is released"),
                Err(error) => debug!(%error, "lease was not released, it runs out by itself"),
            }
        }
    }

    async fn attempt_and_wait(&mut self) {
        let limit = self.time_left().min(self.settings.renew_deadline / 2);
        let attempt = timeout(limit, self.attempt()).await;
        let attempt = attempt.unwrap_or(Err(Failure::TimedOut(limit)));
        self.access.tried(&self.settings.namespace, attempt.as_ref());
        match attempt {
            Ok(holds) => self.set_holding(holds),
            Err(error) => {
                debug!(%error, "lease attempt failed");
                // Others may take over at the length; the answer that got lost may have been a success.
                self.set_holding(self.is_holding() && !self.time_left().is_zero());
            }
        }
        let retry = self.settings.retry;
        sleep(random_between(retry.mul_f64(0.8), retry.mul_f64(1.2)).min(self.time_left())).await;
    }

    /// Until a holder must have renewed; for others there is no such end.
    fn time_left(&self) -> Duration {
        match self.renewed.filter(|_| self.is_holding()) {
            Some(renewed) => self.settings.renew_deadline.saturating_sub(renewed.elapsed()),
            None => Duration::MAX,
        }
    }

    /// One look and, where it is ours or free, one write. Whether it is held now.
    async fn attempt(&mut self) -> Result<bool, Failure> {
        // The time counts from before the request: later would be longer than others grant it.
        let asked = Instant::now();
        let api = self.api.0.clone();
        let Some(found) = api.get_opt(&self.settings.name).await.map_err(|error| from_call(&error))? else {
            let new = self
                .lease(ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() }, None);
            return self.written(api.create(&PostParams::default(), &new).await, asked);
        };
        if !self.may_take(&found) {
            return Ok(false);
        }
        let mut metadata = found.metadata;
        metadata.managed_fields = None;
        let lease = self.lease(metadata, found.spec);
        self.written(api.replace(&self.settings.name, &PostParams::default(), &lease).await, asked)
    }

    fn may_take(&mut self, found: &Lease) -> bool {
        let version = found.metadata.resource_version.as_deref().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != version) {
            self.seen = Some((version.to_owned(), Instant::now()));
        }
        let spec = found.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.settings.identity {
            return true;
        }
        // The holder's own length counts: it may run with other settings.
        let seconds =
            spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let length = seconds.map_or(self.settings.length, Duration::from_secs);
        self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= length)
    }

    fn lease(&self, metadata: ObjectMeta, before: Option<LeaseSpec>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = before.unwrap_or_default();
        let again = before.holder_identity.as_deref() == Some(self.settings.identity.as_str());
        let length = i32::try_from(self.settings.length.as_secs().max(1)).unwrap_or(i32::MAX);
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(length),
            acquire_time: before.acquire_time.filter(|_| again).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if again { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    fn written(&mut self, result: kube::Result<Lease>, asked: Instant) -> Result<bool, Failure> {
        match result {
            Ok(lease) => {
                self.seen = lease.metadata.resource_version.map(|version| (version, asked));
                self.renewed = Some(asked);
                Ok(true)
            }
            // Someone else was faster. If it was ours, it is not any more.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(from_call(&error)),
        }
    }

    async fn release(&self) -> Result<(), Failure> {
        let release = async {
            let api = &self.api.0;
            let mut lease = api.get(&self.settings.name).await.map_err(|error| from_call(&error))?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.settings.identity.as_str()) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            let replaced = api.replace(&self.settings.name, &PostParams::default(), &lease).await;
            replaced.map(drop).map_err(|error| from_call(&error))
        };
        let limit = Duration::from_secs(2);
        timeout(limit, release).await.unwrap_or(Err(Failure::TimedOut(limit)))
    }

    fn is_holding(&self) -> bool {
        *self.holding.borrow()
    }

    fn set_holding(&self, holds: bool) {
        let changed = self.holding.send_if_modified(|holding| std::mem::replace(holding, holds) != holds);
        if changed && holds {
            info!(lease = self.settings.name, "lease is held, this replica writes Events");
        } else if changed {
            info!(lease = self.settings.name, "lease is held no more, this replica writes no Events");
        }
    }
}
