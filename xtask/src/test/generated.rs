//! Files in the repository that the code writes: `cargo xtask generate` writes them, the step compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tools::{self, cargo};

/// A generated file and the arguments that make `portolan` print it.
const FILES: [(&str, &[&str]); 1] = [("docs/configuration.md", &["settings"])];

/// Fails when a file is not what the code would write now.
pub(super) fn check() -> Result<()> {
    for (path, content) in contents()? {
        let current = fs::read_to_string(&path).unwrap_or_default();
        if current != content {
            bail!("{} is not what the code generates: run `cargo xtask generate`", path.display());
        }
    }
    Ok(())
}

/// Writes all of them.
pub(crate) fn write() -> Result<()> {
    for (path, content) in contents()? {
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn contents() -> Result<Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let portolan = binary(root)?;
    FILES.iter().map(|(file, arguments)| Ok((root.join(file), print(&portolan, arguments)?))).collect()
}

fn print(portolan: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(portolan).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!(
            "`portolan {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("a generated file is UTF-8")
}

/// The binary as the tests' build makes it: nothing is compiled twice.
fn binary(root: &Path) -> Result<PathBuf> {
    tools::run(cargo().args(["test", "--workspace", "--no-run"]))?;
    let output = cargo().args(["metadata", "--no-deps", "--format-version=1"]).current_dir(root).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names the target folder")?;
    Ok(Path::new(target).join("debug/portolan"))
}
