//! The two halves of a real-node test: the outer one starts the test's own binary again, for this one test, as the second
//! process of new network, mount, PID and IPC namespaces; the inner one has a machine to itself.
//!
//! So nothing is left when it ends, however it ends: with the first process go all the others, with them the mounts, the
//! network and the firewall's rules. Only control groups are not in a namespace; they are removed by name.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use super::{images, machine};
use crate::{
    cluster::{self, Version},
    process::Process,
    registry, run_dir,
};

/// The addresses of the node's bridge.
pub(super) const IPV4: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
pub(super) const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 1);

/// Set in the inner half: the folder of the run.
const INSIDE: &str = "WASHLET_E2E_INSIDE";
/// The file that says that the inner half ran the test, and not that it found none of this name.
const PASSED: &str = "passed";
/// Control groups of all runs are called so, and then by the process that made them.
const CGROUP_PREFIX: &str = "washlet-e2e-";
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// For all steps of one test.
const LIMIT: Duration = Duration::from_secs(8 * 60);
/// Lines of the inner half that are for whoever reads a run that passed.
const FIGURES: &str = "figures:";

/// The folder of this run, in the inner half.
pub(super) fn dir() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// The control group that the node's pods are in.
pub(super) fn cgroup(dir: &Path) -> Result<String> {
    let name =
        fs::read_to_string(dir.join("cgroup")).context("reading the control group's name")?;
    Ok(format!("/{name}"))
}

/// Says that the test has run to its end.
pub(super) fn passed(dir: &Path) -> Result<()> {
    fs::write(dir.join(PASSED), "").context("saying that the test passed")
}

/// Runs the test of this name in namespaces of its own; or says loudly why it can't.
pub(super) async fn enter(test: &str) -> Result<()> {
    let reason = match Version::wanted()? {
        Version::V1_36 => machine::lacks(),
        // A kubelet may not be newer than its API server, and just one is pinned.
        Version::V1_32 => Some("the node's programs are those of Kubernetes 1.36".to_owned()),
    };
    if let Some(reason) = reason {
        say(&format!("!!! {test}: NOT RUN: {reason}"));
        return Ok(());
    }
    let dir = run_dir::subdir("node")?;
    let folder = dir.clone();
    tokio::task::spawn_blocking(move || prepare(&folder))
        .await
        .context("preparing a node")??;
    let groups = Cgroups::new()?;
    fs::write(dir.join("cgroup"), &groups.name).context("writing the control group's name")?;

    let log = dir.join("test.log");
    let mut process = Process::spawn(test, inner(test, &dir)?, &log)?;
    let ended = process.wait(LIMIT).await;
    process.kill9();
    let output = fs::read_to_string(&log).unwrap_or_default();
    for line in output.lines() {
        println!("{line}");
        if line.starts_with(FIGURES) {
            say(line);
        }
    }
    let code = ended?;
    if code != 0 || !dir.join(PASSED).exists() {
        run_dir::keep();
        bail!("{test} failed on its node ({code}); its output is above");
    }
    Ok(())
}

/// Whatever needs the network of this machine, or its time.
fn prepare(dir: &Path) -> Result<()> {
    cluster::install_node()?;
    registry::install()?;
    images::build(&dir.join("images"))
}

fn inner(test: &str, dir: &Path) -> Result<Command> {
    let own = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--ipc",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        include_str!("init.sh"),
        "init",
    ]);
    command.arg(dir).arg(own);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
        .env(INSIDE, dir)
        .env("TMPDIR", dir)
        .env("NODE_IPV4", IPV4.to_string())
        .env("NODE_IPV6", IPV6.to_string());
    Ok(command)
}

/// To the terminal, past the test library, which hides what a test prints that passes.
fn say(line: &str) {
    // Nobody to tell it to is no failure.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The control groups of a run, removed with it, in each hierarchy.
struct Cgroups {
    name: String,
}

// === impl Cgroups ===

impl Cgroups {
    /// New groups for a run, in each hierarchy; removes what a killed run has left.
    fn new() -> Result<Self> {
        for dir in below(CGROUP_PREFIX) {
            let owner = dir.file_name().and_then(|name| {
                let name = name.to_str()?.strip_prefix(CGROUP_PREFIX)?;
                Pid::from_raw(name.split('-').next()?.parse().ok()?)
            });
            if owner.is_none_or(|pid| rustix::process::test_kill_process(pid).is_err()) {
                remove(&dir);
            }
        }
        let number = crate::random::word()?;
        let number = number.get(..6).unwrap_or(&number);
        let this = Self {
            name: format!("{CGROUP_PREFIX}{}-{number}", std::process::id()),
        };
        for hierarchy in hierarchies() {
            this.make(&hierarchy)?;
        }
        Ok(this)
    }

    fn make(&self, hierarchy: &Path) -> Result<()> {
        let dir = hierarchy.join(&self.name);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // In version 1 a new group may use nothing, and so hold no process.
            let all = fs::read_to_string(hierarchy.join(file)).unwrap_or_default();
            if !all.trim().is_empty() {
                fs::write(dir.join(file), all).with_context(|| format!("writing {file}"))?;
            }
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        below(&self.name).iter().for_each(|dir| remove(dir));
    }
}

/// Groups at the top of each hierarchy whose name begins so.
fn below(prefix: &str) -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let groups = hierarchies().into_iter().flat_map(|dir| folders(&dir));
    groups.filter(is_ours).collect()
}

/// `/sys/fs/cgroup` in version 2, the folders in it in version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUP_ROOT);
    let is_one = |dir: &PathBuf| dir.join("cgroup.procs").exists();
    if is_one(&root) {
        return vec![root];
    }
    folders(&root).into_iter().filter(is_one).collect()
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = dir.read_dir() else {
        return Vec::new();
    };
    let dirs = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

/// Children first; their files are the kernel's and go with them.
fn remove(dir: &Path) {
    for child in folders(dir) {
        remove(&child);
    }
    // Busy while a process of it dies; the next run tries again.
    let _ = fs::remove_dir(dir);
}
