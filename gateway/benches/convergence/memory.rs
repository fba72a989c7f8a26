//! Resident memory of this process.

use anyhow::{Context, Result};

const MIB: f64 = 1024.0 * 1024.0;

/// What is resident now, and the most that ever was, in MiB.
pub(crate) fn resident_mib() -> Result<(f64, f64)> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading the process's status")?;
    let field = |name: &str| -> Result<f64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).context("a field of the status")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / MIB)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}
