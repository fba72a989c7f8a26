//! The labels of single namespaces, read again every few seconds.
//!
//! A Role can grant `get` on its own Namespace object, but no list or watch of namespaces: those need a ClusterRole.
//! So where only some namespaces are followed, each is polled. Without the right the labels count as absent.

use std::sync::Arc;
use std::time::Duration;

use kube::core::params::GetParams;
use kube::core::request::Request as Ask;
use kube::{Client, Resource};
use portolan_model::ResourceRef;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::backoff::{Backoff, random_between};
use super::metrics::KindMetrics;
use super::request::{Failure, fetch};
use super::watch::{Closed, Observer, Report, WatchTimings};
use crate::objects::Namespace;

/// The poll of one namespace; [`Poll::run`] is its life.
pub(crate) struct Poll<O> {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) every: Duration,
    pub(crate) timings: WatchTimings,
    pub(crate) metrics: KindMetrics,
    pub(crate) observer: O,
}

impl<O: Observer<Namespace>> Poll<O> {
    /// Polls until nobody listens any more. Dropping the future ends it at once.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.timings.backoff);
        let mut last = None;
        loop {
            let result = self.look().await;
            let observed = Instant::now();
            let wait = match &result {
                Ok(_) => {
                    backoff.reset();
                    random_between(self.every.mul_f64(0.9), self.every.mul_f64(1.1))
                }
                Err(failure) => backoff.next(failure),
            };
            if self.tell(result, &mut last, observed).await.is_err() {
                return;
            }
            sleep(wait).await;
        }
    }

    async fn look(&self) -> Result<Namespace, Failure> {
        let request = Ask::new(Namespace::url_path(&(), None))
            .get_metadata(&self.namespace, &GetParams::default())
            .map_err(|error| Failure::Garbled(format!("the request cannot be written: {error}")))?;
        let namespace: Namespace = fetch(&self.client, request, self.timings.answer).await?;
        match namespace.metadata.name.as_deref() == Some(&self.namespace) {
            true => Ok(namespace),
            false => Err(Failure::Garbled("another namespace than the one asked for".into())),
        }
    }

    async fn tell(
        &mut self,
        result: Result<Namespace, Failure>,
        last: &mut Option<Namespace>,
        observed: Instant,
    ) -> Result<(), Closed> {
        let failure = match result {
            Ok(namespace) => {
                self.metrics.listening();
                if last.as_ref().map(|it| &it.metadata.labels) != Some(&namespace.metadata.labels) {
                    self.metrics.heard("applied");
                    let objects = vec![namespace.clone()];
                    let report = Report::Listed { objects, gone: Vec::new(), malformed: Vec::new() };
                    self.observer.report(report, observed).await?;
                    *last = Some(namespace);
                }
                return self.observer.report(Report::Listening, observed).await;
            }
            Err(failure) => failure,
        };
        debug!(%failure, "namespace cannot be read");
        self.metrics.lost(&failure);
        if failure.is_not_found() && last.take().is_some() {
            let gone = ResourceRef::new(Arc::from("Namespace"), "", self.namespace.as_str());
            self.observer.report(Report::Deleted(gone), observed).await?;
        }
        self.observer.report(Report::Lost(failure), observed).await
    }
}
