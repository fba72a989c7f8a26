//! The gateway put together: a table of contents of the process.
//!
//! Order of start: log, sockets of the pages, settings followed, sources and store, data path (which opens its listeners
//! with the first picture, and that is published only when it is whole), pages. Order of the end: readiness fails, the
//! data path drains, everything else ends with the process.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use portolan_discovery::Discovered;
use portolan_proxy::{Proxy, ProxyConfig};
use prometheus::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, FindingGauge, FollowedToken, Token, View};
use crate::certificate::{self, Followed as FollowedCertificate};
use crate::live::{self, Live, Said};
use crate::origin::{Origin, Reporting};
use crate::settings::{LogFormat, Settings};
use crate::snapshot::Snapshot;
use crate::translated;

/// Runs a gateway until it is told to stop.
pub(crate) fn run(settings: Settings, said: Said) -> anyhow::Result<ExitCode> {
    start_log(&settings)?;
    on_control_runtime(async {
        // Listened to from the start: process 1 of a container ignores signals that it does not listen to.
        let mut stop = tokio::spawn(stop_signal());
        let gateway = tokio::select! {
            gateway = Gateway::start(settings, said) => gateway?,
            _ = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        stop.await.context("waiting for a signal panicked")?;
        gateway.drain().await;
        Ok(ExitCode::SUCCESS)
    })?
}

/// Runs the future on the runtime of everything but requests. What is still reading or writing a file when the future
/// ends is left alone: a disk that hangs must not hold up the end of the process.
pub(crate) fn on_control_runtime<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control runtime cannot start")?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

/// Starts the log on standard error. Once a process.
pub(crate) fn start_log(settings: &Settings) -> anyhow::Result<()> {
    // The client logs each failed request as an error of its own; the watches say what it means. Directives of the
    // setting come after it, and so win.
    let directives = format!("kube_client=off,{}", settings.log);
    let filter = tracing_subscriber::EnvFilter::try_new(directives)
        .with_context(|| format!("--log {:?} is neither a level nor a list of directives", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Waits for SIGTERM or an interrupt.
pub(crate) async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; only SIGKILL will end this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    proxy: Proxy,
    view: Arc<View>,
    live: Live,
    reporting: Reporting,
    draining: watch::Sender<bool>,
    shutdown: CancellationToken,
}

impl Gateway {
    /// Starts everything; what can be wrong with this machine is found here.
    pub(crate) async fn start(settings: Settings, said: Said) -> anyhow::Result<Self> {
        let token = admin_token(&settings)?;
        let certificate = certificate::follow(&settings)?;
        let registry = Registry::new();
        let origin = Origin::choose(&settings, &registry).await?;
        probe_listeners(&settings)?;
        let status = admin::bind("status", settings.status).await?;
        let admin = admin::bind("admin", settings.admin).await?;
        let snapshot = Snapshot::read(&settings, origin.place(&settings)).await;
        let config_map = origin.config_map(&settings);
        let mut rights: Vec<_> = config_map.iter().map(|followed| followed.rights.clone()).collect();
        let live = live::follow(settings.clone(), said, config_map);
        let (discovered, file_findings) = origin.discover(&settings, snapshot, &live, &registry)?;
        let proxy = data_path(&settings, certificate.as_ref(), &live, &discovered, &registry)?;
        let mut finding_sources = vec![discovered.findings.clone(), proxy.findings(), live.findings.clone()];
        let shutdown = CancellationToken::new();
        let reporting = origin.report(&settings, finding_sources.clone(), &registry, &shutdown)?;
        rights.extend(reporting.rights.iter().cloned());
        finding_sources.append(&mut rights);
        finding_sources.extend(file_findings);
        finding_sources.extend(token.iter().map(|token| token.findings.clone()));
        finding_sources.extend(certificate.map(|certificate| certificate.findings));
        let (draining, is_draining) = watch::channel(false);
        let view = Arc::new(View {
            discovered,
            proxy: proxy.view(),
            registry,
            finding_sources,
            draining: is_draining,
        });
        view.registry
            .register(Box::new(FindingGauge::new(Arc::downgrade(&view))))
            .context("the metric of findings has a name of its own")?;
        admin::serve_status(status, Arc::clone(&view));
        admin::serve_admin(admin, Arc::clone(&view), token.map(|token| token.token));
        Ok(Self { proxy, view, live, reporting, draining, shutdown })
    }

    /// Waits until requests are served on the first full picture.
    pub(crate) async fn ready(&self) {
        self.view.discovered.clone().ready().await;
        // The sender lives as long as the proxy, which lives as long as this.
        drop(self.proxy.publishing().wait_for(|generation| *generation > 0).await);
        drop(self.proxy.listeners().wait_for(|listeners| !listeners.is_empty()).await);
    }

    /// Lets requests finish; another signal to stop cuts that short.
    pub(crate) async fn drain(self) {
        self.draining.send_replace(true);
        self.shutdown.cancel();
        let (delay, timeout) = {
            let settings = self.live.settings.borrow();
            (settings.drain_delay, settings.drain_timeout)
        };
        tracing::info!(
            ?delay,
            ?timeout,
            "draining: readiness fails, connections are still accepted for the delay"
        );
        let report = self.proxy.drain(delay, timeout, stop_signal()).await;
        tracing::info!(?report, "drained");
        self.reporting.end().await;
    }
}

/// The sockets themselves are opened once there is a table to serve; a port that is taken is told before.
fn probe_listeners(settings: &Settings) -> anyhow::Result<()> {
    for (setting, bind) in settings.binds() {
        portolan_proxy::probe(bind).with_context(|| {
            format!("--{setting} {bind} cannot be bound: is another process on that port? Choose another by --{setting}")
        })?;
    }
    Ok(())
}

fn admin_token(settings: &Settings) -> anyhow::Result<Option<FollowedToken>> {
    ensure!(
        settings.admin_is_local() || settings.admin_token_file.is_some(),
        "--admin {} can be reached from other machines: name a file with a token by --admin-token-file, or choose a \
         loopback address",
        settings.admin
    );
    settings.admin_token_file.clone().map(Token::follow).transpose()
}

fn data_path(
    settings: &Settings,
    certificate: Option<&FollowedCertificate>,
    live: &Live,
    discovered: &Discovered,
    registry: &Registry,
) -> anyhow::Result<Proxy> {
    let config = ProxyConfig {
        certificate: certificate.map(|certificate| certificate.served.clone()),
        ..translated::proxy_config(settings)
    };
    let live = live.map(translated::live_config);
    Proxy::start(config, live, discovered.snapshots.clone(), registry).context("the data path cannot start")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_does_not_wait_for_a_disk() {
        let (_disk, disk_answers) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = on_control_runtime(async {
                tokio::task::spawn_blocking(move || {
                    begin.send(()).unwrap();
                    disk_answers.recv()
                });
                begun.await.unwrap();
            });
            end.send(outcome.is_ok()).unwrap();
        });
        assert!(ended.recv_timeout(Duration::from_secs(10)).expect("it ends"));
    }
}
