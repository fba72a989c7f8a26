//! One measurement: a proxy started, warmed, measured and stopped.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::cases::{Case, Pace};
use super::peer::Peer;
use super::processes::CpuTime;
use super::results::Round;
use super::server::Server;
use super::setup::{Bench, Setup, Shape};
use super::tether::tethered;
use super::{idle, instructions, load, portolan};

/// How a case is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measurement<'a> {
    pub(super) case: &'a Case,
    /// Requests a second, in the open loop.
    pub(super) rate: Option<f64>,
    pub(super) duration: Duration,
}

impl Measurement<'_> {
    /// Measures one contestant once.
    ///
    /// # Errors
    /// If the proxy does not start, ends meanwhile, or the load itself fails.
    pub(super) async fn of(&self, bench: &Bench, peer: Peer, shape: Shape) -> anyhow::Result<Round> {
        let folder = bench.work_folder()?;
        if self.case.pace == Pace::Counted {
            return instructions::count(bench, peer, shape, self.case.request).await;
        }
        let setup = bench.setup(folder.path(), shape)?;
        let command = bench.programs.command(peer, &setup)?;
        let mut server = Server::start(&command, bench, folder.path())?;
        server.answers(setup.plain).await?;
        if shape.tls {
            server.listens(setup.tls).await?;
        }
        let address = if self.case.request.tls { setup.tls } else { setup.plain };
        match self.case.pace {
            Pace::Idle => idle::memory(&server, self.case.request, address, &bench.ourselves).await,
            Pace::Closed | Pace::HalfOfPeak | Pace::Counted => {
                let _churn = (shape.churn > 0).then(|| churn(bench, &setup)).transpose()?;
                self.under_load(bench, &server, peer, address).await
            }
        }
    }

    async fn under_load(
        &self,
        bench: &Bench,
        server: &Server,
        peer: Peer,
        address: SocketAddr,
    ) -> anyhow::Result<Round> {
        let request = self.case.request;
        let ask = |duration| load::ask(&bench.ourselves, request, address, self.rate, duration);
        ask(peer.warm_up()).await?;
        let tree = server.tree();
        let (before, start) = (tree.cpu_time(), Instant::now());
        let seen = ask(self.duration).await?;
        let (used, took) = (tree.cpu_time().since(before), start.elapsed());
        let mut round = round(&seen, used, took);
        round.resident_mib = tree.resident_kib() as f64 / 1024.0;
        Ok(round)
    }
}

fn round(seen: &load::Seen, used: CpuTime, took: Duration) -> Round {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / seen.requests.max(1) as f64;
    Round {
        requests: seen.requests,
        requests_per_second: seen.requests_per_second,
        cpu_us: each(used.total()),
        user_us: each(used.user),
        busy: used.total().as_secs_f64() / took.as_secs_f64().max(f64::EPSILON),
        p50_us: seen.latency_us.p50,
        p99_us: seen.latency_us.p99,
        p999_us: seen.latency_us.p999,
        errors: seen.errors.clone(),
        ..Round::default()
    }
}

/// Changes the endpoints until it is dropped.
fn churn(bench: &Bench, setup: &Setup<'_>) -> anyhow::Result<Child> {
    let mut churn = std::process::Command::new(&bench.ourselves);
    churn.args(["churn", "--service", "echo", "--folder"]).arg(portolan::manifests(setup.folder));
    for upstream in setup.upstreams {
        churn.args(["--endpoint", &upstream.to_string()]);
    }
    churn.args(["--rate", &setup.shape.churn.to_string()]);
    let mut command = Command::from(tethered(&bench.ourselves, &churn));
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().context("cannot start the changes of endpoints")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_shared_among_the_requests() {
        let seen = load::Seen {
            answered_after_end: 0,
            requests: 200_000,
            requests_per_second: 50_000.0,
            latency_us: load::Latency { p50: 1.0, p99: 2.0, p999: 3.0 },
            errors: [("reset".to_owned(), 1)].into(),
        };
        let used = CpuTime { user: Duration::from_secs(1), system: Duration::from_secs(2) };
        let round = round(&seen, used, Duration::from_secs(4));
        assert_eq!((round.cpu_us, round.user_us, round.busy), (15.0, 5.0, 0.75));
        assert_eq!((round.p99_us, round.errors["reset"]), (2.0, 1));
    }
}
