//! `cargo xtask cluster`: becomes the playground, a program of the end-to-end tests' crate.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::cargo::cargo;

/// Arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    /// The Kubernetes version.
    #[arg(long, env = "WASHLET_E2E_KUBERNETES", default_value = "1.36", value_parser = ["1.36", "1.32"])]
    kubernetes: String,
}

/// Does not come back unless cargo is missing: signals then reach the playground itself.
pub fn run(args: &Args) -> Result<()> {
    let mut command = cargo(&[
        "run",
        "--package",
        "washlet-e2e",
        "--bin",
        "washlet-playground",
    ]);
    command.env("WASHLET_E2E_KUBERNETES", &args.kubernetes);
    Err(command.exec()).context("starting cargo")
}
