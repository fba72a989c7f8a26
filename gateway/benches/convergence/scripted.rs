//! The scripted part: everything in this process but the sockets of clients and endpoints.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use portolan_discovery::{Discovered, Source as _, Store};
use portolan_model::{Contribution, Listener, ListenerId, Protocol, ResourceRef, Role};
use portolan_proxy::{LiveConfig, Proxy, ProxyConfig};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Figures;
use crate::fleet::Fleet;
use crate::memory;
use crate::observe::Observer;
use crate::script::{Script, Step};

const WORKERS: usize = 2;

/// Runs both rates and fills in the figures.
pub(crate) fn measure(duration: Duration, figures: &mut Figures) -> Result<()> {
    let fleet = Fleet::new(5_000, 100_000, 5_000);
    (figures.services, figures.endpoints) = (Some(fleet.services()), Some(fleet.endpoints()));
    let (steps, told) = mpsc::channel(1);
    let (yielded, seen) = mpsc::channel(4096);
    let script = Script { fleet, steps: told, yielded };
    let started = Instant::now();
    let (running, runs) = oneshot::channel();
    // As the gateway does: one thread for all that is not traffic.
    let control =
        std::thread::Builder::new().name("control".to_owned()).spawn(move || control(script, running))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Ok((discovered, publishing)) = runs.await else { return Ok(()) };
        let mut observer = Observer { yielded: seen, snapshots: discovered.snapshots.clone(), publishing };
        first_table(discovered, &mut observer).await?;
        figures.first_table_ms = Some(started.elapsed().as_secs_f64() * 1e3);
        // What the first table left to be freed is freed by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (before, _) = memory::resident_mib()?;
        let times = changes(&steps, &mut observer, 100.0, duration).await?;
        [figures.event_to_swap_p50_ms, figures.event_to_swap_p99_ms, figures.event_to_swap_max_ms] =
            summary(&times);
        let times = changes(&steps, &mut observer, 1000.0, duration).await?;
        [
            figures.event_to_swap_p50_ms_at_1000,
            figures.event_to_swap_p99_ms_at_1000,
            figures.event_to_swap_max_ms_at_1000,
        ] = summary(&times);
        // Holding is not cheaper than after a time of changes: the larger figure counts.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (after, peak) = memory::resident_mib()?;
        (figures.rss_mib, figures.peak_rss_mib) = (Some(before.max(after)), Some(peak));
        anyhow::Ok(())
    })?;
    drop(steps);
    control.join().map_err(|_| anyhow::anyhow!("the control thread panicked"))?
}

/// Store, script and proxy. Ends when the script does.
fn control(script: Script, running: oneshot::Sender<(Discovered, watch::Receiver<u64>)>) -> Result<()> {
    // As the gateway does.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut store = Store::new();
        let sink = store.sink(script.name(), true);
        let settings = store.sink("settings", true);
        let discovered = store.subscribe();
        let (_live, live) = watch::channel(Arc::new(LiveConfig::default()));
        let config = ProxyConfig { workers: WORKERS, ..ProxyConfig::default() };
        let proxy = Proxy::start(config, live, discovered.snapshots.clone(), &prometheus::Registry::new())?;
        let store = tokio::spawn(store.run());
        settings.upsert(ResourceRef::new("Setting", "", "listen"), listener(), Instant::now()).await;
        settings.synced();
        running.send((discovered, proxy.publishing())).ok().context("the bench has ended")?;
        script.run(sink).await?;
        store.abort();
        proxy.drain(Duration::ZERO, Duration::ZERO, std::future::ready(())).await;
        Ok(())
    })
}

fn listener() -> Contribution {
    let listener = Listener {
        id: ListenerId::new("edge"),
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        role: Role::Edge,
        protocol: Protocol::Http,
    };
    Contribution { listeners: vec![Arc::new(listener)], ..Contribution::default() }
}

/// Waits until the workers have the whole fleet.
async fn first_table(mut discovered: Discovered, observer: &mut Observer) -> Result<()> {
    discovered.ready().await;
    let generation = discovered.snapshots.borrow().generation;
    observer.publishing.wait_for(|usable| *usable >= generation).await?;
    Ok(())
}

async fn changes(
    steps: &mpsc::Sender<Step>,
    observer: &mut Observer,
    rate: f64,
    duration: Duration,
) -> Result<Histogram<u64>> {
    let count = (rate * duration.as_secs_f64()) as usize;
    steps.send(Step::Changes { count, rate }).await?;
    observer.step().await
}

/// p50, p99 and the maximum, in milliseconds.
fn summary(times: &Histogram<u64>) -> [Option<f64>; 3] {
    [times.value_at_quantile(0.5), times.value_at_quantile(0.99), times.max()]
        .map(|micros| Some(micros as f64 / 1e3))
}
