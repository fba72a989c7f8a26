//! Objects written by `kubectl`, and when the API server acknowledged it: kubectl itself takes some time to end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Cluster;

/// `kubectl apply` of one object, as a user does it.
///
/// # Errors
/// When the API server refuses it.
pub(crate) fn apply(cluster: &Cluster, object: &Value) -> Result<Instant> {
    let mut file = tempfile::NamedTempFile::with_suffix(".json")?;
    file.write_all(object.to_string().as_bytes())?;
    let path = file.path().to_str().context("the temporary folder has a name in UTF-8")?;
    write(cluster, &["apply", "-f", path])
}

/// A command of kubectl that writes; when the first of its writes was acknowledged.
///
/// # Errors
/// When kubectl fails; what it said is in the message.
pub(crate) fn write(cluster: &Cluster, arguments: &[&str]) -> Result<Instant> {
    // So much is said at this level: a line for each answer, as it comes.
    let mut command = cluster.kubectl_command(&[&["-v=6"], arguments].concat());
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("starting kubectl")?;
    let said = BufReader::new(child.stderr.take().context("its messages are piped")?);
    let (mut acknowledged, mut all) = (None, String::new());
    for line in said.lines() {
        let line = line?;
        if acknowledged.is_none() && is_acknowledgement(&line) {
            acknowledged = Some(Instant::now());
        }
        all.push_str(&line);
        all.push('\n');
    }
    ensure!(child.wait()?.success(), "kubectl {}: {all}", arguments.join(" "));
    acknowledged.with_context(|| format!("kubectl {} wrote nothing: {all}", arguments.join(" ")))
}

/// Older kubectls say `PATCH https://… 200 OK in 5 milliseconds`, newer ones `verb="PATCH" … status="200 OK"`.
fn is_acknowledgement(line: &str) -> bool {
    ["POST", "PUT", "PATCH", "DELETE"].iter().any(|verb| line.contains(verb))
        && ["200 OK", "201 Created"].iter().any(|status| line.contains(status))
}
