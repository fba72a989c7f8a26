//! `portolan-loadtest churn`: endpoints of a Service that come and go at a given rate.
//!
//! A gateway that follows a folder of manifests (`portolan run --files`) follows this. There is a file for each
//! endpoint with an EndpointSlice of its own; a change makes one endpoint ready or not ready, at random, but never more
//! than half of them not ready. The servers behind them go on serving, so no request has a reason to fail.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// The options of `churn`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder of manifests.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// The Service whose endpoints change, in the namespace `default`.
    #[arg(long, value_name = "NAME")]
    service: String,
    /// An endpoint: where a server listens. May be repeated or a list with commas.
    #[arg(long = "endpoint", value_name = "ADDR:PORT", value_delimiter = ',', required = true)]
    endpoints: Vec<SocketAddr>,
    /// Changes a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long; without it until SIGTERM.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

/// The endpoints of one Service, each ready or not, and a manifest for each.
#[derive(Debug)]
pub(crate) struct Endpoints<'a> {
    service: &'a str,
    addresses: &'a [SocketAddr],
    ready: Vec<bool>,
}

/// Changes endpoints until the time is over or a signal comes, makes all ready again, and tells how many changes it made.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.endpoints.len() < 2 {
        bail!(
            "one endpoint cannot change without the Service losing its last one: give --endpoint twice or more"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let changes = runtime.block_on(change(options))?;
    writeln!(std::io::stdout(), "{changes} changes of {}", options.service)?;
    Ok(ExitCode::SUCCESS)
}

async fn change(options: &Options) -> anyhow::Result<u64> {
    let mut endpoints = Endpoints::new(&options.service, &options.endpoints);
    endpoints.write(&options.folder)?;
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut due = interval(Duration::from_secs(1) / options.rate);
    // The rate is kept on the whole when a write took long.
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let start = Instant::now();
    let over = async {
        match options.duration {
            Some(duration) => sleep_until(start + duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut changes = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut over => break,
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            _ = due.tick() => {
                endpoints.change_one(&options.folder)?;
                changes += 1;
            }
        }
    }
    Endpoints::new(&options.service, &options.endpoints).write(&options.folder)?;
    Ok(changes)
}

impl<'a> Endpoints<'a> {
    /// All ready.
    pub(crate) fn new(service: &'a str, addresses: &'a [SocketAddr]) -> Self {
        Self { service, addresses, ready: vec![true; addresses.len()] }
    }

    /// Writes the manifests of all.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        (0..self.addresses.len()).try_for_each(|index| self.write_one(folder, index))
    }

    /// Makes one ready that was not, or the other way round.
    fn change_one(&mut self, folder: &Path) -> anyhow::Result<()> {
        let index = self.next();
        self.ready[index] = !self.ready[index];
        self.write_one(folder, index)
    }

    /// The one to change: any, but only a return when half of them are away.
    fn next(&self) -> usize {
        let away: Vec<_> = (0..self.ready.len()).filter(|&index| !self.ready[index]).collect();
        if away.len() >= self.ready.len() / 2 {
            away[fastrand::usize(..away.len())]
        } else {
            fastrand::usize(..self.ready.len())
        }
    }

    /// Beside its place first, then renamed: nobody reads half of it.
    fn write_one(&self, folder: &Path, index: usize) -> anyhow::Result<()> {
        let name = format!("{}-{index}", self.service);
        let (hidden, file) = (folder.join(format!(".{name}.tmp")), folder.join(format!("{name}.yaml")));
        fs::write(&hidden, self.manifest(&name, index))
            .and_then(|()| fs::rename(&hidden, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn manifest(&self, name: &str, index: usize) -> String {
        let (address, ready, service) = (self.addresses[index], self.ready[index], self.service);
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: {service}}}\naddressType: {}\nports:\n- {{name: http, port: {}, \
             protocol: TCP}}\nendpoints:\n- addresses: [\"{}\"]\n  conditions: {{ready: {ready}}}\n  targetRef: {{kind: \
             Pod, name: {name}, uid: {name}}}\n",
            if address.is_ipv4() { "IPv4" } else { "IPv6" },
            address.port(),
            address.ip(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_them_stay_ready_whatever_changes() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = [1, 2, 3, 4, 5].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut endpoints = Endpoints::new("echo", &addresses);
        endpoints.write(folder.path()).unwrap();
        let mut seen_away = 0;
        for _ in 0..500 {
            endpoints.change_one(folder.path()).unwrap();
            let files = fs::read_dir(folder.path()).unwrap();
            let texts: Vec<_> = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
            let away = texts.iter().filter(|text| text.contains("{ready: false}")).count();
            assert_eq!(texts.len(), 5);
            assert!(away <= 2, "{away} are away");
            seen_away = seen_away.max(away);
        }
        assert_eq!(seen_away, 2);
    }
}
