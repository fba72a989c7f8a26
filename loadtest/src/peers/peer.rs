//! Who is compared, and where their programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::machine::{said, version_in};
use super::setup::Setup;
use super::wheels::Wheels;
use super::{envoy, haproxy, nginx, portolan, traefik};

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
        }
    }
}

/// The programs of the contestants.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// The contestants, in the order of their turns.
    pub(super) contestants: Vec<Peer>,
    portolan: Option<PathBuf>,
    wheels: Option<Wheels>,
}

impl Programs {
    /// Finds, builds or installs what these contestants need.
    ///
    /// # Errors
    /// If that fails.
    pub(super) fn find(contestants: &[Peer], portolan: Option<&Path>) -> anyhow::Result<Self> {
        let has_portolan = contestants.contains(&Peer::Portolan);
        let has_others = contestants.iter().any(|&peer| peer != Peer::Portolan);
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
            wheels: has_others.then(Wheels::install).transpose()?,
        })
    }

    /// What each contestant says that it is: `HAProxy 2.8.25`.
    pub(super) fn versions(&self) -> Vec<String> {
        let version = |&peer: &Peer| {
            let text = said(&mut self.version_command(peer)).unwrap_or_default();
            format!("{} {}", peer.name(), version_in(&text).unwrap_or("of an unknown version"))
        };
        self.contestants.iter().map(version).collect()
    }

    /// Writes the contestant's configuration into the setup's folder, and gives the command that runs it.
    pub(super) fn command(&self, peer: Peer, setup: &Setup<'_>) -> anyhow::Result<Command> {
        match peer {
            Peer::Portolan => portolan::command(self.portolan(), setup),
            Peer::HaProxy => haproxy::command(self.program(peer), setup),
            Peer::Nginx => nginx::command(self.program(peer), setup),
            Peer::Envoy => envoy::command(self.program(peer), setup),
            Peer::Traefik => traefik::command(self.program(peer), setup),
        }
    }

    fn version_command(&self, peer: Peer) -> Command {
        let (program, argument) = match peer {
            Peer::Portolan => (Command::new(self.portolan()), "--version"),
            Peer::HaProxy => (self.program(peer), "-v"),
            Peer::Nginx => (self.program(peer), "-v"),
            Peer::Envoy => (self.program(peer), "--version"),
            Peer::Traefik => (self.program(peer), "version"),
        };
        let mut command = program;
        command.arg(argument);
        command
    }

    fn portolan(&self) -> &Path {
        self.portolan.as_deref().expect("it was found or built for the contestant")
    }

    fn program(&self, peer: Peer) -> Command {
        self.wheels.as_ref().expect("they were installed for the contestant").program(peer)
    }
}
