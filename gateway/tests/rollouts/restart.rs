//! A gateway that is killed while the API server is away.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use portolan_testbed::ControlPlane;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::cluster::{Api, Pod, Portolan};

const SERVICE: &str = "customers";
/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);
/// Within this it is ready without an API server: two seconds, and what a machine at work adds.
const READY_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn run(control_plane: &ControlPlane) -> Result<()> {
    Portolan::prepare(control_plane)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(scenario(control_plane))
}

async fn scenario(control_plane: &ControlPlane) -> Result<()> {
    let api = Api::connect(control_plane).await?;
    let before = pod("before", 1)?;
    api.create_service(SERVICE, std::slice::from_ref(&before.entry)).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("snapshot");
    let flags = ["--snapshot-file", file.to_str().context("the path is UTF-8")?];
    let kubeconfig = block_in_place(|| Portolan::kubeconfig(control_plane))?;

    let first = block_in_place(|| Portolan::start_with(&kubeconfig, &flags))?;
    until("the file is written", || Ok(file.exists()))?;
    block_in_place(|| control_plane.kill_api_server());
    drop(first);

    let began = Instant::now();
    let _second = block_in_place(|| Portolan::start_with(&kubeconfig, &flags))?;
    let took = began.elapsed();
    println!("ready {} ms after the start without an API server", took.as_millis());
    ensure!(took < READY_WITHIN, "it took {took:?} to be ready");
    ensure!(readiness()?["restored"]["age_seconds"].as_u64().is_some(), "it says so: {}", readiness()?);
    ensure!(serves("before")?, "what was known is served");

    block_in_place(|| control_plane.restart_api_server())?;
    let after = pod("after", 2)?;
    api.write_endpoints(SERVICE, std::slice::from_ref(&after.entry)).await?;
    until("the new endpoint answers", || serves("after"))?;
    until("the picture is its own", || Ok(readiness()?["restored"].is_null()))?;
    ensure!(!serves("before")?, "what went is not served any more");
    Ok(())
}

fn pod(name: &str, number: u8) -> Result<Pod> {
    Pod::start(name, Ipv4Addr::new(10, 20, 200, number), &[])
}

fn serves(name: &str) -> Result<bool> {
    Ok(ask(Portolan::edge(), &format!("/{SERVICE}/7"))?.contains(name))
}

fn readiness() -> Result<serde_json::Value> {
    let answer = ask(Portolan::status(), "/readyz")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    Ok(serde_json::from_str(body)?)
}

fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > PATIENCE {
            bail!("after {PATIENCE:?} it is still not so that {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
