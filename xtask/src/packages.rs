//! What the tests' real node takes from the system: installed where this process may do so.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{cargo, steps::Outcome};

/// A file that a package has, or a program; and the package, as Debian and Ubuntu call it.
const NEEDED: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("strip", "binutils"),
];

/// Installs what is missing; says what, where it can't.
pub fn install() -> Result<Outcome> {
    let missing = missing(is_there);
    if missing.is_empty() {
        return Ok(Outcome::Done);
    }
    let names = missing.join(" ");
    // The owner of a process's folder is the user that it runs as.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root || !is_there("apt-get") {
        return Ok(Outcome::NotRun(format!(
            "the tests on a real node will not run: missing here are {names}, and {}",
            if is_root {
                "only apt-get is known here to install them"
            } else {
                "installing them takes root, as the tests do"
            }
        )));
    }
    let update = apt_get(&["update"]);
    cargo::run(update).context("reading the lists of packages")?;
    let fixed = ["install", "--yes", "--no-install-recommends"];
    cargo::run(apt_get(&[fixed.as_slice(), &missing].concat()))?;
    let still = self::missing(is_there);
    if !still.is_empty() {
        bail!(
            "installed, but not where it is looked for: {}",
            still.join(" ")
        );
    }
    Ok(Outcome::Done)
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(name, _)| !is_there(name))
        .map(|&(_, package)| package)
        .collect()
}

fn is_there(name: &str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .any(|dir| dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_whose_file_is_missing_are_installed() {
        // A machine with Docker has containerd from another package, which Debian's would replace.
        assert_eq!(
            missing(|name| name != "nft" && name != "/usr/lib/cni/bridge"),
            ["containernetworking-plugins", "nftables"]
        );
        assert!(missing(|_| true).is_empty());
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(is_there("sh") && is_there("/"));
        assert!(!is_there("washlet-no-such-program") && !is_there("/washlet/none"));
    }
}
