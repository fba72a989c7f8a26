//! Who is compared, and where their programs are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::machine::{said, version_in};
use super::setup::Setup;
use super::wheels::Wheels;
use super::{envoy, haproxy, nginx, portolan, spring, traefik};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// This project's.
    Portolan,
    /// HAProxy.
    #[value(name = "haproxy")]
    HaProxy,
    /// nginx.
    Nginx,
    /// Envoy.
    Envoy,
    /// Traefik.
    Traefik,
    /// Spring Cloud Gateway; only if it is asked for, and without TLS: it has one port.
    #[value(name = "scg")]
    SpringCloudGateway,
}

impl Peer {
    /// Those that are compared if nothing else is said.
    pub(super) const DEFAULT: [Self; 5] =
        [Self::Portolan, Self::HaProxy, Self::Nginx, Self::Envoy, Self::Traefik];

    /// Its name as its makers write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portolan => "Portolan",
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::SpringCloudGateway => "Spring Cloud Gateway",
        }
    }

    /// Whether it takes part in cases with TLS.
    pub(super) fn takes_tls(self) -> bool {
        self != Self::SpringCloudGateway
    }

    /// Caches, pools and branch predictors are filled for so long before it is measured; what is used by then does not
    /// count. Java compiles what it runs meanwhile.
    pub(super) fn warm_up(self) -> Duration {
        Duration::from_secs(if self == Self::SpringCloudGateway { 15 } else { 1 })
    }
}

/// The programs of the contestants.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// The contestants, in the order of their turns.
    pub(super) contestants: Vec<Peer>,
    portolan: Option<PathBuf>,
    spring: Option<PathBuf>,
    wheels: Option<Wheels>,
}

impl Programs {
    /// Finds, builds or installs what these contestants need.
    ///
    /// # Errors
    /// If that fails.
    pub(super) fn find(contestants: &[Peer], portolan: Option<&Path>) -> anyhow::Result<Self> {
        let has_portolan = contestants.contains(&Peer::Portolan);
        let has_spring = contestants.contains(&Peer::SpringCloudGateway);
        let is_in_wheel = |peer: &Peer| ![Peer::Portolan, Peer::SpringCloudGateway].contains(peer);
        let has_wheels = contestants.iter().any(is_in_wheel);
        Ok(Self {
            contestants: contestants.to_vec(),
            portolan: match portolan {
                Some(program) => {
                    let found = program.canonicalize();
                    Some(found.with_context(|| format!("--portolan {} is not there", program.display()))?)
                }
                None if has_portolan => Some(portolan::build()?),
                None => None,
            },
            spring: has_spring.then(spring::build).transpose()?,
            wheels: has_wheels.then(Wheels::install).transpose()?,
        })
    }

    /// What each contestant says that it is: `HAProxy 2.8.25`.
    pub(super) fn versions(&self) -> Vec<String> {
        let named = |&peer: &Peer| {
            let version = self.version(peer);
            format!("{} {}", peer.name(), version.as_deref().unwrap_or("of an unknown version"))
        };
        self.contestants.iter().map(named).collect()
    }

    /// Writes the contestant's configuration into the setup's folder, and gives the command that runs it.
    pub(super) fn command(&self, peer: Peer, setup: &Setup<'_>) -> anyhow::Result<Command> {
        match peer {
            Peer::Portolan => portolan::command(self.portolan(), setup),
            Peer::HaProxy => haproxy::command(self.program(peer), setup),
            Peer::Nginx => nginx::command(self.program(peer), setup),
            Peer::Envoy => envoy::command(self.program(peer), setup),
            Peer::Traefik => traefik::command(self.program(peer), setup),
            Peer::SpringCloudGateway => spring::command(self.spring(), setup),
        }
    }

    fn version(&self, peer: Peer) -> Option<String> {
        let (mut program, argument) = match peer {
            Peer::Portolan => (Command::new(self.portolan()), "--version"),
            Peer::HaProxy => (self.program(peer), "-v"),
            Peer::Nginx => (self.program(peer), "-v"),
            Peer::Envoy => (self.program(peer), "--version"),
            Peer::Traefik => (self.program(peer), "version"),
            Peer::SpringCloudGateway => return spring::version(self.spring()).ok(),
        };
        let text = said(program.arg(argument)).ok()?;
        version_in(&text).map(str::to_owned)
    }

    fn spring(&self) -> &Path {
        self.spring.as_deref().expect("it was built for the contestant")
    }

    fn portolan(&self) -> &Path {
        self.portolan.as_deref().expect("it was found or built for the contestant")
    }

    /// The command that runs a peer from a wheel, without its arguments.
    pub(super) fn program(&self, peer: Peer) -> Command {
        self.wheels.as_ref().expect("they were installed for the contestant").program(peer)
    }
}
