//! What `/proc` says of a process and all that it has started.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// A process with its children, their children, and so on, as they were when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree(Vec<u32>);

/// CPU time since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    /// In the program itself.
    pub(super) user: Duration,
    /// In the kernel on its behalf.
    pub(super) system: Duration,
}

/// The fields of `/proc/PID/stat` that count here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Tree {
    /// The processes below `root`, and `root`.
    pub(super) fn of(root: u32) -> Self {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Some(stat) = Stat::read(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut found = vec![root];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children.get(pid).into_iter().flatten());
            next += 1;
        }
        Self(found)
    }

    /// Their numbers, the root's first.
    pub(super) fn pids(&self) -> &[u32] {
        &self.0
    }

    /// What they have used together. One that has ended counts nothing.
    pub(super) fn cpu_time(&self) -> CpuTime {
        let stats = self.0.iter().filter_map(|&pid| Stat::read(pid));
        let (user, system) =
            stats.fold((0, 0), |sum, stat| (sum.0 + stat.user_ticks, sum.1 + stat.system_ticks));
        CpuTime { user: ticks(user), system: ticks(system) }
    }

    /// Resident memory of them together, in KiB.
    pub(super) fn resident_kib(&self) -> u64 {
        self.0
            .iter()
            .filter_map(|pid| resident_kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
            .sum()
    }
}

impl CpuTime {
    /// What was used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }

    /// Both parts.
    pub(super) fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses too.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            user_ticks: number(11)?,
            system_ticks: number(12)?,
        })
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_fields_are_behind_a_name_with_anything_in_it() {
        let text = "77 (a) (b 9) S 12 77 77 0 -1 4194304 1 2 3 4 150 25 7 8 20 0 1 0 100 0 0";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 12, user_ticks: 150, system_ticks: 25 }));
        assert_eq!(Stat::parse("77 (a) S"), None);
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2048));
        assert_eq!(resident_kib("Name:\tx\n"), None);
    }

    #[test]
    fn a_shell_and_its_child_are_one_tree() {
        let script = "exec 3<&0; cat <&3 & wait";
        let mut shell = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let begin = tokio::time::Instant::now();
        let tree = loop {
            let tree = Tree::of(shell.id());
            if tree.pids().len() > 1 || begin.elapsed() > Duration::from_secs(5) {
                break tree;
            }
            std::thread::yield_now();
        };
        assert_eq!((tree.pids().len(), tree.pids()[0]), (2, shell.id()));
        assert!(tree.resident_kib() > 0);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(tree.cpu_time(), CpuTime::default(), "who has ended counts nothing");
    }

    #[test]
    fn work_shows_as_cpu_time() {
        let tree = Tree::of(std::process::id());
        let before = tree.cpu_time();
        let begin = tokio::time::Instant::now();
        while tree.cpu_time().since(before).total() < Duration::from_millis(20) {
            assert!(begin.elapsed() < Duration::from_secs(10), "spinning takes no CPU time");
        }
    }
}
