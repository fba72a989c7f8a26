//! The scripted source: what the Kubernetes source does, with a script in the place of the watch.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use portolan_discovery::translate::{Index, ObjectEvent, Scope, TranslateConfig};
use portolan_discovery::{Change, Sink, Source};
use portolan_model::ResourceRef;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::fleet::Fleet;
use crate::observe::{Awaited, Yielded};

/// One step of the script.
#[derive(Debug)]
pub(crate) enum Step {
    /// So many changes at this rate, in random order, no endpoint twice.
    Changes { count: usize, rate: f64 },
}

/// Holds the fleet and flips its endpoints as told.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) fleet: Fleet,
    pub(crate) steps: mpsc::Receiver<Step>,
    pub(crate) yielded: mpsc::Sender<Yielded>,
}

/// What the watch yields: the object, and when.
type Event = (ObjectEvent, Instant);

impl Source for Script {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn run(self, sink: Sink) -> Result<()> {
        let (events, inbox) = mpsc::channel(1024);
        let watch = tokio::spawn(self.watch(events));
        follow(inbox, sink).await;
        watch.await?
    }
}

impl Script {
    /// In the place of the watch: the full lists, then changes.
    async fn watch(mut self, events: mpsc::Sender<Event>) -> Result<()> {
        let services = ObjectEvent::AllServices(Scope::All, self.fleet.all_services());
        events.send((services, Instant::now())).await?;
        let slices = ObjectEvent::AllEndpointSlices(Scope::All, self.fleet.all_slices());
        events.send((slices, Instant::now())).await?;
        while let Some(Step::Changes { count, rate }) = self.steps.recv().await {
            let mut order: Vec<usize> = (0..self.fleet.endpoints()).collect();
            fastrand::shuffle(&mut order);
            let start = Instant::now();
            for (number, endpoint) in order.into_iter().take(count).enumerate() {
                sleep_until(start + Duration::from_secs_f64(number as f64 / rate)).await;
                let (flip, slice) = self.fleet.flip(endpoint);
                let now = Instant::now();
                self.yielded.send(Yielded::Flip(Awaited { flip, since: now })).await?;
                events.send((ObjectEvent::EndpointSlice(slice), now)).await?;
            }
            self.yielded.send(Yielded::EndOfStep).await?;
        }
        Ok(())
    }
}

/// Takes events in as the Kubernetes source's follower does: what has come together is said together.
async fn follow(mut inbox: mpsc::Receiver<Event>, sink: Sink) {
    const BATCH: usize = 256;
    let config = TranslateConfig::kubernetes("shop");
    let mut index = Index::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut lists = 0;
    while inbox.recv_many(&mut batch, BATCH).await > 0 {
        let mut touched: BTreeSet<ResourceRef> = BTreeSet::new();
        let mut since = Instant::now();
        for (event, observed) in batch.drain(..) {
            lists += usize::from(matches!(
                event,
                ObjectEvent::AllServices(..) | ObjectEvent::AllEndpointSlices(..)
            ));
            touched.extend(index.apply(event));
            since = since.min(observed);
        }
        // The first picture is said when both lists are there.
        if lists < 2 {
            continue;
        }
        let changes = touched.into_iter().map(|resource| match index.contribution(&resource, &config) {
            Some(contribution) => Change::Upsert(resource, contribution),
            None => Change::Remove(resource),
        });
        let changes = changes.collect();
        sink.apply(changes, since).await;
        sink.synced();
        sink.fresh(true);
    }
}
