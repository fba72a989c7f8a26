//! What an idle connection costs: memory with thousands of them, each of which was asked for something once.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use portolan_loadtest::measure::{Plan, Protocol, Target, Trust, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::answer::missing;
use super::cases::Request;
use super::load;
use super::processes::Tree;
use super::results::Round;
use super::server::Server;

const WARM_UP: Duration = Duration::from_secs(1);
const WARM_UP_CONNECTIONS: u32 = 64;
/// How long one connection may take to be opened and answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the connections one after the other, asks once on each, and compares resident memory before and with them.
///
/// # Errors
/// If one of them cannot be opened or is not answered.
pub(super) async fn memory(
    server: &Server,
    request: Request,
    address: SocketAddr,
    program: &Path,
) -> anyhow::Result<Round> {
    // So that what every proxy allocates once is there before.
    let warm_up = Request { connections: WARM_UP_CONNECTIONS, ..request };
    load::ask(program, warm_up, address, None, WARM_UP).await?;
    let tree = server.tree();
    let before = settled(&tree).await;
    let held = hold(request, address).await?;
    let with_them = settled(&tree).await;
    let added = with_them.saturating_sub(before) as f64;
    let round = Round {
        resident_mib: with_them as f64 / 1024.0,
        connection_kib: Some(added / held.len() as f64),
        ..Round::default()
    };
    for mut connection in held {
        connection.is_open().await.context("a connection that was to be idle was closed")?;
    }
    Ok(round)
}

/// Resident memory in KiB once it has stayed the same for half a second.
async fn settled(tree: &Tree) -> u64 {
    let mut last = tree.resident_kib();
    for _ in 0..10 {
        // Nothing tells when a process has freed what it is going to free.
        sleep(Duration::from_millis(500)).await;
        let now = tree.resident_kib();
        if now.abs_diff(last) * 1000 <= now {
            return now;
        }
        last = now;
    }
    last
}

/// A connection that was answered once.
struct Held(Wire);

async fn hold(request: Request, address: SocketAddr) -> anyhow::Result<Vec<Held>> {
    let scheme = if request.tls { "https" } else { "http" };
    let target = Target::parse(&format!("{scheme}://{address}{}", request.path))?.server_name("localhost");
    let plan = Plan::to(&target, Protocol::Http1, &Trust::Anyone)?;
    let mut held = Vec::new();
    for number in 1..=request.connections {
        let connection = timeout(PATIENCE, Held::open(address, &plan, request.path)).await;
        let connection = connection.context("it took too long").flatten();
        held.push(connection.with_context(|| format!("connection {number} of {}", request.connections))?);
    }
    Ok(held)
}

impl Held {
    async fn open(address: SocketAddr, plan: &Plan, path: &str) -> anyhow::Result<Self> {
        let mut held = Self(plan.connect().await?);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        held.0.write_all(request.as_bytes()).await?;
        held.0.flush().await?;
        held.answer().await?;
        Ok(held)
    }

    /// Reads one answer to its end.
    async fn answer(&mut self) -> anyhow::Result<()> {
        let mut answer = Vec::new();
        loop {
            let mut piece = [0; 4096];
            match self.0.read(&mut piece).await? {
                0 => bail!("it was closed before its answer ended"),
                length => answer.extend_from_slice(&piece[..length]),
            }
            if missing(&answer)? == Some(0) {
                return Ok(());
            }
        }
    }

    /// Whether the other side has neither closed it nor sent what nobody asked for.
    async fn is_open(&mut self) -> anyhow::Result<()> {
        let mut piece = [0; 1];
        match timeout(Duration::ZERO, self.0.read(&mut piece)).await {
            Err(_) => Ok(()),
            Ok(Ok(0)) => bail!("its end was read"),
            Ok(Ok(_)) => bail!("a byte too many was read"),
            Ok(Err(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_loadtest::upstream::Upstream;

    use super::super::cases;
    use super::*;

    #[tokio::test]
    async fn connections_are_answered_once_and_held() {
        let upstream = Upstream::named("a").start().unwrap();
        let request = Request { connections: 3, ..cases::find("idle").unwrap().request };
        let mut held = hold(request, upstream.address()).await.unwrap();
        assert_eq!(held.len(), 3);
        for connection in &mut held {
            connection.is_open().await.unwrap();
        }
    }
}
