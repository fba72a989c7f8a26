//! The scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portolan_loadtest::load::{Failure, Load, Pace, Report, Running};
use portolan_testbed::ControlPlane;
use serde::Serialize;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::cluster::{Api, Entry, Pod, Portolan};

const SERVICE: &str = "orders";
const ENDPOINTS: usize = 6;
/// Addresses come back after so many generations: then a pod has the address of another that was.
const ADDRESS_GENERATIONS: usize = 4;
/// How long after the API server's return the table may be wrong.
const RIGHT_WITHIN: Duration = Duration::from_secs(5);
/// Requests that were under way at an upstream when it was killed fail within this time.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// What is to happen.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often all upstreams are replaced.
    pub(crate) rollouts: usize,
    /// How long the API server is away.
    pub(crate) outage: Duration,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    rollouts: usize,
    /// Answered requests by the generation of the upstream.
    generations: BTreeMap<String, u64>,
    replacing: Report,
    outage: Report,
    /// When the upstream was killed, from the start of that part.
    killed_at_ms: f64,
    /// From the first write that the returned API server acknowledged to the table that shows it.
    table_right_after_ms: f64,
}

impl Plan {
    /// Runs all of it. Blocks.
    pub(crate) fn run(&self, control_plane: &ControlPlane) -> Result<Outcome> {
        Portolan::prepare(control_plane)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let api = Arc::new(Api::connect(control_plane).await?);
            let mut shop = Shop::open(&api).await?;
            let _portolan = block_in_place(|| Portolan::start(control_plane))?;
            let replacing = shop.replace_all(&api, self.rollouts).await?;
            let (outage, killed_at, right_after) =
                shop.lose_api_server(&api, control_plane, self.outage).await?;
            Ok(Outcome {
                rollouts: self.rollouts,
                generations: by_generation(&replacing),
                replacing,
                outage,
                killed_at_ms: killed_at.as_secs_f64() * 1e3,
                table_right_after_ms: right_after.as_secs_f64() * 1e3,
            })
        })
    }
}

fn load() -> Result<Running> {
    let load = Load {
        pace: Pace::Open { rate: 1000.0 },
        connections: 64,
        new_connections: 0.2,
        timeout: Duration::from_secs(10),
        ..Load::to(Portolan::edge(), &format!("/{SERVICE}/7"))
    };
    load.with_posts(0.1, "an order").start()
}

// === the Service and its upstreams ===

struct Shop {
    pods: Vec<Pod>,
    generation: usize,
}

impl Shop {
    async fn open(api: &Api) -> Result<Self> {
        let pods = (0..ENDPOINTS).map(|place| start(0, place)).collect::<Result<Vec<_>>>()?;
        let shop = Self { pods, generation: 0 };
        api.create_service(SERVICE, &shop.entries()).await?;
        Ok(shop)
    }

    fn entries(&self) -> Vec<Entry> {
        self.pods.iter().map(|pod| pod.entry.clone()).collect()
    }

    async fn write(&self, api: &Api, leaving: Option<&Entry>) -> Result<()> {
        let entries: Vec<_> = self.entries().into_iter().chain(leaving.cloned()).collect();
        api.write_endpoints(SERVICE, &entries).await
    }

    /// Replaces all upstreams, `rollouts` times, under load.
    async fn replace_all(&mut self, api: &Api, rollouts: usize) -> Result<Report> {
        let running = load()?;
        sleep(Duration::from_millis(500)).await;
        for _ in 0..rollouts {
            self.generation += 1;
            for place in 0..ENDPOINTS {
                self.replace(api, place).await?;
            }
        }
        sleep(Duration::from_millis(500)).await;
        running.stop();
        running.finished().await
    }

    /// As a Deployment does with a surge of one: the new one comes, the old one is told to go, and is gone.
    async fn replace(&mut self, api: &Api, place: usize) -> Result<()> {
        let new = block_in_place(|| start(self.generation, place))?;
        let mut old = std::mem::replace(&mut self.pods[place], new);
        self.write(api, Some(&old.entry)).await?;
        old.entry.terminating = true;
        self.write(api, Some(&old.entry)).await?;
        block_in_place(|| {
            old.terminate()?;
            old.wait()
        })?;
        self.write(api, None).await
    }

    /// Kills the API server under load, and one upstream half way; brings the API server back and mends the slice.
    /// Gives what the load saw, when the upstream was killed, and how long the table was wrong.
    async fn lose_api_server(
        &mut self,
        api: &Arc<Api>,
        control_plane: &ControlPlane,
        outage: Duration,
    ) -> Result<(Report, Duration, Duration)> {
        let running = load()?;
        let started = Instant::now();
        sleep(Duration::from_secs(1)).await;
        block_in_place(|| control_plane.kill_api_server());
        sleep(outage / 2).await;
        let killed_at = started.elapsed();
        block_in_place(|| self.pods[0].kill())?;
        sleep(outage / 2).await;

        self.generation += 1;
        let new = block_in_place(|| start(self.generation, 0))?;
        let dead = std::mem::replace(&mut self.pods[0], new).entry.clone();
        let (mender, entries) = (api.clone(), self.entries());
        let mended = tokio::spawn(async move { write_until_acknowledged(&mender, &entries).await });
        block_in_place(|| control_plane.restart_api_server())?;
        let acknowledged = mended.await??;
        let right = block_in_place(|| wait_for_table(&self.pods[0].entry, &dead))?;
        // The load goes on for a while on the mended table.
        sleep(Duration::from_secs(1)).await;
        running.stop();
        Ok((running.finished().await?, killed_at, right.saturating_duration_since(acknowledged)))
    }
}

fn start(generation: usize, place: usize) -> Result<Pod> {
    let octet = |number: usize| u8::try_from(number).expect("there are few of them");
    let address = Ipv4Addr::new(10, 20, octet(generation % ADDRESS_GENERATIONS), octet(place + 1));
    // So slow that some requests are always under way when it is told to go.
    let arguments = ["--latency", "10ms", "--on-term", "delay=100ms"];
    Pod::start(&format!("g{generation:02}-{place}"), address, &arguments)
}

/// The API server may be asked as soon as it listens; until then, and while it starts, it refuses.
async fn write_until_acknowledged(api: &Api, entries: &[Entry]) -> Result<Instant> {
    let begun = Instant::now();
    loop {
        match api.write_endpoints(SERVICE, entries).await {
            Ok(()) => return Ok(Instant::now()),
            Err(error) if begun.elapsed() > Duration::from_secs(120) => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits until the gateway's table has the one and not the other; gives when.
fn wait_for_table(new: &Entry, dead: &Entry) -> Result<Instant> {
    let begun = Instant::now();
    loop {
        let table = table()?;
        let has = |entry: &Entry| table.contains(&entry.uid);
        if has(new) && !has(dead) {
            return Ok(Instant::now());
        }
        if begun.elapsed() > RIGHT_WITHIN * 6 {
            bail!("the table was still wrong after {:?}: {table}", RIGHT_WITHIN * 6);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn table() -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9901)).context("the admin pages")?;
    stream.write_all(b"GET /table HTTP/1.1\r\nhost: 127.0.0.1:9901\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "/table answers {answer}");
    Ok(answer)
}

fn by_generation(report: &Report) -> BTreeMap<String, u64> {
    let mut generations = BTreeMap::new();
    for (name, count) in &report.upstreams {
        let generation = name.split('-').next().unwrap_or(name).to_owned();
        *generations.entry(generation).or_default() += count;
    }
    generations
}

// === what came of it ===

impl Outcome {
    /// What should not have been.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<_> =
            self.replacing.failures.iter().map(|failure| format!("while replacing: {failure}")).collect();
        let lived = self.outage.failures.iter().filter(|failure| !self.is_of_the_killed(failure));
        faults.extend(lived.map(|failure| format!("without the API server: {failure}")));
        if self.generations.len() != self.rollouts + 1 {
            let (seen, made) = (self.generations.len(), self.rollouts + 1);
            faults.push(format!("{seen} of {made} generations answered requests"));
        }
        if self.table_right_after_ms > RIGHT_WITHIN.as_secs_f64() * 1e3 {
            faults.push(format!(
                "the table was right only {:.0} ms after the return",
                self.table_right_after_ms
            ));
        }
        faults
    }

    /// A request that was under way at the upstream that was killed may fail: a POST is not sent twice.
    fn is_of_the_killed(&self, failure: &Failure) -> bool {
        let killed = Duration::from_secs_f64(self.killed_at_ms / 1e3);
        let about = killed.saturating_sub(Duration::from_millis(100))..killed + LAST_BREATH;
        failure.method == "POST" && about.contains(&failure.at)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} replacements of {ENDPOINTS} endpoints", self.rollouts)?;
        writeln!(f, "{} requests, {} failed", self.replacing.requests, self.replacing.failed)?;
        for (generation, count) in &self.generations {
            writeln!(f, "  {generation}: {count}")?;
        }
        write!(f, "{}", without_upstreams(&self.replacing))?;
        writeln!(f, "\nthe API server away, one upstream killed after {:.0} ms", self.killed_at_ms)?;
        writeln!(
            f,
            "the table right {:.0} ms after the first write to the returned one",
            self.table_right_after_ms
        )?;
        write!(f, "{}", self.outage)
    }
}

/// Hundreds of names say less than the generations.
fn without_upstreams(report: &Report) -> Report {
    Report { upstreams: BTreeMap::new(), ..report.clone() }
}
