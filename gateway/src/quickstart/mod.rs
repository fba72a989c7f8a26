//! `portolan quickstart`: the gateway and something behind it, on one machine, in one command.
//!
//! Three small upstream services run in this process; their manifests stand in a temporary folder, from which the
//! gateway runs just as `portolan run --files DIR` would. Keys scale and break one of them; `--demo` does so by itself.

mod shop;
mod upstream;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::sync::mpsc;

use crate::app::{self, Gateway};
use crate::live::Said;
use crate::settings::{self, ConfigFile, Flags};
use crate::terminal;
use shop::Shop;

/// Time between two steps of the demonstration.
const DEMO_STEP: Duration = Duration::from_secs(2);

/// The subcommand.
pub(crate) fn command() -> Command {
    let demo = Arg::new("demo")
        .long("demo")
        .action(ArgAction::SetTrue)
        .help("Scale, break and repair by itself, without keys");
    let steps = Arg::new("steps")
        .long("steps")
        .value_name("N")
        .value_parser(clap::value_parser!(u32))
        .requires("demo")
        .help("End after this many steps of the demonstration");
    Command::new("quickstart")
        .about("Try the gateway on three sample services in this process")
        .arg(demo)
        .arg(steps)
}

/// Runs until `q`, an interrupt, or the last step of the demonstration.
pub(crate) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let steps =
        matches.get_flag("demo").then(|| matches.get_one::<u32>("steps").copied().unwrap_or(u32::MAX));
    let folder = tempfile::tempdir().context("no temporary folder can be made for the sample manifests")?;
    app::on_control_runtime(show(folder.path(), steps))??;
    Ok(ExitCode::SUCCESS)
}

async fn show(folder: &std::path::Path, steps: Option<u32>) -> anyhow::Result<()> {
    let mut shop = Shop::open(folder).await.context("the sample servers cannot start")?;
    let addresses = Addresses::choose()?;
    let said = Said { flags: addresses.flags(folder), file: ConfigFile::default() };
    let settings = settings::resolve(&said.flags, &|_| None, &said.file)
        .map_err(|problems| anyhow::anyhow!("{}", problems[0]))?;
    app::start_log(&settings)?;
    let gateway = Gateway::start(settings, said).await?;
    gateway.ready().await;
    greet(folder, &addresses, steps.is_some());
    let acts = if let Some(steps) = steps { demonstration(steps) } else { keys() };
    act_on(&mut shop, acts).await?;
    gateway.drain().await;
    Ok(())
}

/// The addresses of the demonstration: the usual ones, or free ones where those are taken.
struct Addresses {
    edge: SocketAddr,
    cluster: SocketAddr,
    admin: SocketAddr,
    status: SocketAddr,
}

impl Addresses {
    fn choose() -> anyhow::Result<Self> {
        Ok(Self { edge: free(8080)?, cluster: free(8081)?, admin: free(9901)?, status: free(9902)? })
    }

    fn flags(&self, folder: &std::path::Path) -> Flags {
        let texts = [
            ("files", folder.display().to_string()),
            ("default-namespace", "default".to_owned()),
            ("all-namespaces", "true".to_owned()),
            ("listen", self.edge.to_string()),
            ("listen-cluster", self.cluster.to_string()),
            ("admin", self.admin.to_string()),
            ("status", self.status.to_string()),
            ("access-log", "off".to_owned()),
            ("log", "warn".to_owned()),
            ("drain-delay", "0s".to_owned()),
            ("drain-timeout", "1s".to_owned()),
        ];
        Flags(texts.into_iter().map(|(name, text)| (name, vec![text])).collect())
    }
}

/// This port of loopback, or any free one. Between this look and the gateway's bind another process may take it; then
/// the gateway says so.
fn free(port: u16) -> anyhow::Result<SocketAddr> {
    let bind =
        |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    bind(port).or_else(|_| bind(0)).context("no port of 127.0.0.1 is free")
}

fn greet(folder: &std::path::Path, addresses: &Addresses, demo: bool) {
    let Addresses { edge, cluster, admin, .. } = addresses;
    terminal::say(&format!(
        "Portolan is running on the manifests in {}\n\n\
         Try, in another terminal:\n\
         \x20 curl http://{edge}/orders/7                        # three endpoints in turn\n\
         \x20 curl http://{edge}/customers/                      # least connection\n\
         \x20 curl -H 'Host: catalog.shop.localhost' http://{edge}/   # a host of its own\n\
         \x20 curl -x http://{cluster} http://orders/7           # as a caller inside the Kubernetes cluster\n\
         \x20 curl http://{admin}/table                          # routes and endpoints\n\
         \x20 curl 'http://{admin}/explain?url=http://any/orders/7'  # why a request goes where it goes\n",
        folder.display()
    ));
    terminal::say(if demo {
        "The demonstration scales and breaks orders by itself; Ctrl-C ends it."
    } else if terminal::is_interactive() {
        "Keys: + scale up, - scale down, b break, r repair, q quit"
    } else {
        "Standard input is no terminal, so there are no keys; Ctrl-C ends it."
    });
}

/// What can happen to the sample application.
#[derive(Debug, Clone, Copy)]
enum Act {
    ScaleUp,
    ScaleDown,
    Break,
    Repair,
    Quit,
}

async fn act_on(shop: &mut Shop, mut acts: mpsc::Receiver<Act>) -> anyhow::Result<()> {
    loop {
        let act = tokio::select! {
            act = acts.recv() => act.unwrap_or(Act::Quit),
            () = app::stop_signal() => Act::Quit,
        };
        let said = match act {
            Act::ScaleUp => shop.scale_up().await?,
            Act::ScaleDown => shop.scale_down().await?,
            Act::Break => shop.break_one(),
            Act::Repair => shop.repair().await?,
            Act::Quit => return Ok(()),
        };
        terminal::say(&said);
    }
}

fn demonstration(steps: u32) -> mpsc::Receiver<Act> {
    let (acts, received) = mpsc::channel(1);
    tokio::spawn(async move {
        let round = [Act::ScaleUp, Act::Break, Act::Repair, Act::ScaleDown];
        for step in 0..steps {
            tokio::time::sleep(DEMO_STEP).await;
            if acts.send(round[step as usize % round.len()]).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(DEMO_STEP).await;
    });
    received
}

/// Reads keys on a thread of its own, because a terminal can only be read by blocking.
fn keys() -> mpsc::Receiver<Act> {
    let (acts, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        let terminal = console::Term::stdout();
        // Without a terminal there are no keys; the sender stays, so that nobody takes this for the end.
        while terminal::is_interactive() {
            let act = match terminal.read_char() {
                Ok('+') => Act::ScaleUp,
                Ok('-') => Act::ScaleDown,
                Ok('b') => Act::Break,
                Ok('r') => Act::Repair,
                Ok('q') | Err(_) => Act::Quit,
                Ok(_) => continue,
            };
            if acts.blocking_send(act).is_err() || matches!(act, Act::Quit) {
                return;
            }
        }
        std::thread::park();
        drop(acts);
    });
    received
}
