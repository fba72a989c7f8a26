//! From an acknowledged write to the first request that the new endpoint answered.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use portolan_loadtest::load::{Load, Observer, Pace};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::Figures;
use crate::cluster::{self, Api, Entry, Pod, Portolan};

const SERVICES: usize = 1_000;
const WRITES: usize = 500;
/// How often the Service that was written is asked. The figure can be no finer than the time between two.
const RATE: f64 = 2_000.0;

/// Measures, where a control plane is at hand.
pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let Some(control_plane) = cluster::control_plane()? else { return Ok(()) };
    Portolan::prepare(&control_plane)?;
    let pods = [("a", 1), ("b", 2)]
        .map(|(name, last)| Pod::start(name, Ipv4Addr::new(10, 1, 0, last), &[]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let api = Arc::new(Api::connect(&control_plane).await?);
        create_all(&api, &pods[0].entry).await?;
        let _portolan = tokio::task::block_in_place(|| Portolan::start(&control_plane))?;
        let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid");
        let mut order: Vec<usize> = (0..SERVICES).collect();
        fastrand::shuffle(&mut order);
        for service in order.into_iter().take(WRITES) {
            let time = write(&api, &name(service), &pods[1]).await?;
            times.saturating_record(u64::try_from(time.as_micros())?);
        }
        let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        figures.write_to_request_p50_ms = Some(ms(0.5));
        figures.write_to_request_p99_ms = Some(ms(0.99));
        figures.write_to_request_max_ms = Some(ms(1.0));
        Ok(())
    })
}

async fn create_all(api: &Arc<Api>, entry: &Entry) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (api, entry) = (api.clone(), entry.clone());
        writers.spawn(async move {
            for service in (writer..SERVICES).step_by(8) {
                api.create_service(&name(service), std::slice::from_ref(&entry)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

/// Replaces the Service's endpoint while the Service is asked.
async fn write(api: &Api, service: &str, new: &Pod) -> Result<Duration> {
    let (tell, mut told) = mpsc::channel(1);
    let name = new.entry.uid.clone();
    let observer = Observer::new(move |seen| {
        if seen.upstream == Some(&name) {
            // Only the first counts; the channel holds it.
            let _first = tell.try_send(seen.ended).is_ok();
        }
    });
    let load = Load {
        pace: Pace::Open { rate: RATE },
        connections: 4,
        observer: Some(observer),
        ..Load::to(Portolan::edge(), &format!("/{service}/"))
    };
    let running = load.start()?;
    // Asked for a while already when the write comes.
    tokio::time::sleep(Duration::from_millis(10)).await;
    api.write_endpoints(service, std::slice::from_ref(&new.entry)).await?;
    let acknowledged = Instant::now();
    let answered = timeout(Duration::from_secs(10), told.recv()).await;
    running.stop();
    let report = running.finished().await?;
    ensure!(report.failed == 0, "{service}: {report}");
    let Ok(Some(answered)) = answered else {
        anyhow::bail!("{service}: the new endpoint had answered nothing 10 s after the write: {report}");
    };
    Ok(answered.saturating_duration_since(acknowledged))
}

fn name(service: usize) -> String {
    format!("service-{service:04}")
}
