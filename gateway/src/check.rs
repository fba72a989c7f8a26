//! `portolan check DIR`: what the gateway would make of a folder of manifests, for people and for CI.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command};
use portolan_discovery::file::FileSource;
use portolan_discovery::{Source, Store};
use portolan_model::{Finding, Severity, Snapshot};
use portolan_proxy::table::Publisher;

use crate::live::Said;
use crate::settings::{self, ConfigFile, Flags};
use crate::{app, terminal};

/// The subcommand.
pub(crate) fn command() -> Command {
    let folder = Arg::new("DIR").required(true).value_parser(clap::value_parser!(PathBuf));
    let folder = folder.help("A folder of Kubernetes manifests (Services, EndpointSlices, Namespaces)");
    Flags::declare(
        Command::new("check")
            .about("Judge a folder of manifests: exit code 1 if anything cannot be honoured"),
    )
    .arg(folder)
}

/// Prints the routes and findings; fails with exit code 1 if a finding is an error.
pub(crate) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let folder: &PathBuf = matches.get_one("DIR").context("clap requires the folder")?;
    ensure!(folder.is_dir(), "{} is not a folder", folder.display());
    let said = Said { flags: Flags::from_matches(matches), file: ConfigFile::default() };
    let settings = match settings::resolve(&said.flags, &crate::variable, &said.file) {
        Ok(settings) => settings,
        Err(problems) => return Ok(crate::refuse(&problems)),
    };
    crate::certificate::check(&settings)?;
    let (snapshot, findings) = app::on_control_runtime(read(&settings, folder))??;
    report(&snapshot, &findings);
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn read(
    settings: &settings::Settings,
    folder: &std::path::Path,
) -> anyhow::Result<(Arc<Snapshot>, Vec<Finding>)> {
    let mut store = Store::new();
    let sink = store.sink("files", true);
    let discovered = store.subscribe();
    tokio::spawn(store.run());
    let translate = tokio::sync::watch::channel(Arc::new(crate::translated::for_files(
        settings,
        &settings.default_namespace("default"),
    )))
    .1;
    let source = tokio::spawn(FileSource::new(folder, translate).run(sink));
    let mut ready = discovered.clone();
    tokio::select! {
        () = ready.ready() => {}
        ended = source => ended.context("the reader of the folder panicked")??,
    }
    let snapshot = Arc::clone(&discovered.snapshots.borrow());
    let mut findings = discovered.findings.borrow().to_vec();
    let (mut publisher, published) = Publisher::new(|_| {});
    publisher.publish(&snapshot);
    findings.extend(published.findings.borrow().iter().cloned());
    Ok((snapshot, findings))
}

fn report(snapshot: &Snapshot, findings: &[Finding]) {
    for finding in findings {
        terminal::say(&finding.to_string());
    }
    let endpoints: usize = snapshot.clusters.values().map(|cluster| cluster.endpoints.len()).sum();
    terminal::say(&format!(
        "{} routes, {} clusters, {endpoints} endpoints, {} findings",
        snapshot.routes.len(),
        snapshot.clusters.len(),
        findings.len()
    ));
}
