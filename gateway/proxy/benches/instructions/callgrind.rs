//! Running this program under callgrind, and reading what it counted.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// One run of this program under callgrind, to be started.
pub(crate) struct Run {
    /// The program with valgrind before it; to be given its arguments and started.
    pub(crate) command: Command,
    folder: TempDir,
}

/// Runs `work`. What happens in here is what is counted of an inside case: callgrind is told the name.
#[inline(never)]
pub(crate) fn portolan_measured<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

impl Run {
    /// A run of which everything is counted that the main thread does not do: that has the control runtime, which
    /// carries no request and is busy with other things at its own times.
    pub(crate) fn beside_main() -> Result<Self> {
        Self::new(&["--separate-threads=yes"])
    }

    /// A run of which what [`portolan_measured`] does is counted.
    pub(crate) fn measured() -> Result<Self> {
        Self::new(&["--toggle-collect=*portolan_measured*"])
    }

    fn new(options: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind"]).args(options);
        command.arg(format!("--callgrind-out-file={}", folder.path().join("counts").display()));
        command.arg(std::env::current_exe().context("cannot tell what this program is")?);
        // It changes what a program does before its first line.
        command.env_remove("LD_PRELOAD");
        // Large copies are one instruction that is counted once for each byte, or a loop that is not, as the addresses
        // happen to lie. Let it be the loop.
        command.env("GLIBC_TUNABLES", NO_STRING_INSTRUCTIONS);
        Ok(Self { command, folder })
    }

    /// The instructions that were counted, once the program has ended.
    pub(crate) fn instructions(&self) -> Result<u64> {
        let mut sum = 0;
        for file in fs::read_dir(self.folder.path())? {
            let path = file?.path();
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if text.lines().any(|line| line == MAIN_OF_SEVERAL) {
                continue;
            }
            // Where each thread has its own file, one more is left empty.
            if let Some(totals) = text.lines().find_map(|line| line.strip_prefix("totals: ")) {
                sum += totals.trim().parse::<u64>().context("callgrind's totals are a number")?;
            }
        }
        ensure!(sum > 0, "callgrind counted nothing: it did not see what was to be measured");
        Ok(sum)
    }
}

/// For glibc: `rep movsb` and `rep stosb` are for sizes that do not occur.
const NO_STRING_INSTRUCTIONS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// How callgrind marks the counts of the main thread where each thread has its own.
const MAIN_OF_SEVERAL: &str = "thread: 1";
