//! An upstream process.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::objects::{Entry, TARGET_PORT};

/// An upstream process on an address of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) entry: Entry,
    child: Child,
}

impl Pod {
    /// Starts it and returns when it listens. It says `name` in each answer; `arguments` are more of its own: how slow
    /// it is, what SIGTERM does to it.
    pub(crate) fn start(name: &str, address: Ipv4Addr, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(super::program("portolan-loadtest")?)
            .args(["backend", "--listen", &format!("{address}:{TARGET_PORT}"), "--name", name])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("its output is piped")?;
        let entry = Entry { address, uid: name.to_owned(), terminating: false };
        let pod = Self { entry, child };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.contains("listens on"), "the upstream {name} did not start on {address}");
        Ok(pod)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "SIGTERM was not sent");
        Ok(())
    }

    /// Kills it, and returns when it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has exited. Blocks.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ended = self.kill().is_ok();
    }
}
