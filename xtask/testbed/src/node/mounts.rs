//! The mount namespace of kubelet and containerd.
//!
//! Both have paths that no option moves: kubelet its device plugins' socket and the links to container logs, containerd
//! the sockets of its shims and the cache of network results. A kubelet or containerd of the machine, or of a second
//! cluster, would find ours there. So both run in a mount namespace where their folders are empty file systems in memory,
//! and what is mounted there is gone with the last process and the file that holds the namespace.
//!
//! The kubelet also sets six values of the kernel for the whole machine. Here it finds files that hold what it wants, and
//! leaves the kernel's alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::succeed;

/// Folders that are empty at first and the namespace's own. `/var/lib/containerd` must not be an overlay, which the
/// machine's own file system may be.
const FOLDERS: [&str; 6] = [
    "/run/containerd",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// What the kubelet wants of the kernel.
const KERNEL_VALUES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A mount namespace that a file holds.
pub(super) struct MountNamespace {
    /// A mount of its own that is shared with no other namespace: the kernel refuses to hold one elsewhere.
    holder: PathBuf,
    /// The logs of the pods, on the machine's disk for the person who looks for the reason.
    pods: PathBuf,
    kernel: PathBuf,
}

impl MountNamespace {
    pub(super) fn of(node: &Path) -> MountNamespace {
        MountNamespace {
            holder: node.join("namespaces"),
            pods: node.join("pods"),
            kernel: node.join("kernel"),
        }
    }

    /// The file by which it is entered.
    pub(super) fn file(&self) -> PathBuf {
        self.holder.join("mounts")
    }

    pub(super) fn create(&self) -> Result<()> {
        for folder in [&self.holder, &self.pods, &self.kernel] {
            fs::create_dir_all(folder)?;
        }
        for folder in FOLDERS {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {folder} to mount on"))?;
        }
        succeed(Command::new("mount").arg("--bind").args([&self.holder, &self.holder]))?;
        succeed(Command::new("mount").arg("--make-private").arg(&self.holder))?;
        fs::write(self.file(), "")?;
        let mut hold = std::ffi::OsString::from("--mount=");
        hold.push(self.file());
        // What the machine unmounts goes here too; what is mounted here stays here.
        let mut unshare = Command::new("unshare");
        unshare.arg(hold).args(["--propagation", "slave", "sh", "-euc", &self.script()?, "sh"]);
        succeed(unshare.args([&self.pods, &self.kernel]))?;
        Ok(())
    }

    /// A command that will run `program` inside.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut enter = std::ffi::OsString::from("--mount=");
        enter.push(self.file());
        let mut command = Command::new("nsenter");
        command.arg(enter).arg("--").arg(program);
        command
    }

    /// `$1` are the pods' logs, `$2` is the folder with the kernel's values.
    fn script(&self) -> Result<String> {
        let mut script = String::new();
        for folder in FOLDERS {
            script += &format!("mount -t tmpfs -o mode=0755 portolan {folder}\n");
        }
        script += "mount --bind \"$1\" /var/log/pods\n";
        for (key, value) in KERNEL_VALUES {
            let name = key.replace('/', ".");
            fs::write(self.kernel.join(&name), format!("{value}\n"))?;
            script += &format!("mount --bind \"$2/{name}\" /proc/sys/{key}\n");
        }
        Ok(script)
    }
}
