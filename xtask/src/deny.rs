//! `cargo deny`: licenses, sources, banned and double crates, and known vulnerabilities.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{
    cargo::{self, cargo},
    steps::Outcome,
};

const VERSION: &str = "0.20.2";

/// What can be said from the lock file and the sources of the crates.
pub fn check() -> Result<Outcome> {
    let mut command = deny()?;
    command.args(["check", "bans", "licenses", "sources"]);
    cargo::run(command).map(|()| Outcome::Done)
}

/// What takes a database that is not in any package registry.
pub fn advisories() -> Result<Outcome> {
    let mut fetch = deny()?;
    fetch.args(["fetch", "db"]).stdin(Stdio::null());
    if !fetch.status()?.success() {
        return Ok(Outcome::NotRun(
            "the database of advisories can't be fetched from here".to_owned(),
        ));
    }
    let mut command = deny()?;
    command.args(["check", "advisories"]);
    cargo::run(command).map(|()| Outcome::Done)
}

/// `cargo-deny`, installed into the cache unless this version is there.
fn deny() -> Result<Command> {
    let root = cargo::cache()?.join("cargo-deny").join(VERSION);
    let binary: PathBuf = root.join("bin/cargo-deny");
    if !binary.is_file() {
        eprintln!("installing cargo-deny {VERSION} (once; some minutes)");
        let mut install = cargo(&[
            "install",
            "--quiet",
            "--locked",
            "--version",
            VERSION,
            "cargo-deny",
            "--root",
        ]);
        // It runs for seconds: a build that is quick matters more than a fast program.
        install
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        install
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env_remove("CARGO_TARGET_DIR");
        install.arg(&root);
        cargo::run(install)?;
    }
    let mut command = Command::new(binary);
    command.current_dir(crate::root());
    Ok(command)
}
