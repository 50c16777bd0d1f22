//! Running cargo and other programs from the root of the repository.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A cargo command, with the cargo that runs this.
pub fn cargo(args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(crate::root()).args(args);
    // Build scripts watch them (ring's does): with those of this package each `cargo xtask` after a plain `cargo build`, and the
    // other way round, would build anew what is above such a crate.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_a_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo run` sets a variable to tell a program which package it is of. The user's own, as `CARGO_TARGET_DIR`, are not.
fn is_of_a_package(variable: &str) -> bool {
    const NAMES: [&str; 3] = [
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
    ];
    const BEGINNINGS: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];
    NAMES.contains(&variable) || BEGINNINGS.iter().any(|b| variable.starts_with(b))
}

/// Runs a command with the output of this process.
pub fn run(mut command: Command) -> Result<()> {
    let shown = shown(&command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command and gives what it prints.
pub fn output(mut command: Command) -> Result<String> {
    let shown = shown(&command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} prints no text"))
}

/// A program of this workspace as `cargo build --workspace` leaves it, which is beside this one.
pub fn built(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("the path of this program")?;
    Ok(here.with_file_name(name))
}

/// Where costly things are kept between runs; the same place that the end-to-end tests use.
pub fn cache() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("WASHLET_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("washlet")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/washlet")))
        .context("no place for a cache: set WASHLET_CACHE or HOME")
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    command.get_args().fold(name, |line, arg| {
        format!("{line} {}", arg.to_string_lossy())
    })
}
