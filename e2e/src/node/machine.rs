//! What this machine lacks for a node of its own.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::process;

/// Programs, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 9] = [
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("strip", "binutils"),
];

/// Where distributions have the plugins for the network of pods.
const CNI_DIRS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

const TRIAL_LIMIT: Duration = Duration::from_secs(10);

/// Why no node can be started here, in words for the one who could change that.
#[must_use]
pub fn lacks() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("it takes Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root, for namespaces and mounts".to_owned());
    }
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|&(_, package)| package)
        .collect();
    if cni_dir().is_none() {
        packages.push("containernetworking-plugins");
    }
    packages.dedup();
    if !packages.is_empty() {
        return Some(format!(
            "these packages are not installed: {}",
            packages.join(", ")
        ));
    }
    let mut trial = Command::new("unshare");
    trial.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "true",
    ]);
    match process::run(trial, TRIAL_LIMIT) {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "the kernel allows no new namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("unshare: {error:#}")),
    }
}

/// The folder of the CNI plugins.
pub(super) fn cni_dir() -> Option<PathBuf> {
    CNI_DIRS
        .iter()
        .map(PathBuf::from)
        .find(|dir| CNI_PLUGINS.iter().all(|plugin| dir.join(plugin).is_file()))
}

/// The path of a program; what only root runs is not on every root's PATH.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
