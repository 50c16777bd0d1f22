//! `cargo xtask test`: what has to pass before a change lands.

use std::{num::NonZeroUsize, process::Command};

use anyhow::{Result, bail};

use crate::{
    cargo::{self, cargo},
    deny, generate, guests, packages,
    steps::{self, Outcome, Plan, Step},
};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Steps to leave out, each of them with a loud line; an unknown name lists them all.
    #[arg(long, value_delimiter = ',', value_name = "STEP")]
    skip: Vec<String>,
    /// The Kubernetes version of the end-to-end tests.
    #[arg(long, env = "WASHLET_E2E_KUBERNETES", default_value = "1.36", value_parser = ["1.36", "1.32"])]
    kubernetes: String,
    /// Go on after a failure, to see them all.
    #[arg(long)]
    keep_going: bool,
    /// Run only the tests whose names contain one of these, and no other check.
    filters: Vec<String>,
    /// Passed to the test binaries as they are.
    #[arg(last = true)]
    test_args: Vec<String>,
}

/// Cheap checks first, and last the one whose summary should end the output.
const STEPS: [Step<Args>; 13] = [
    step("fmt", |_| cargo_each("fmt", &[&["--all"]], &["--check"])),
    step("clippy", |_| clippy(&[&ALL, &THE_E2E])),
    step("clippy-minimal", |_| clippy(&[&MINIMAL])),
    step("clippy-all-features", |_| clippy(&[&ALL_FEATURES])),
    step("doc", |_| doc()),
    step("deny", |_| deny::check()),
    step("advisories", |_| deny::advisories()),
    BUILD,
    step("generated", |_| generate::check_built()),
    step("guests", |_| guests::check()),
    TEST,
    PACKAGES,
    E2E,
];

/// With filters somebody waits for one test.
const FILTERED_STEPS: [Step<Args>; 4] = [BUILD, TEST, PACKAGES, E2E];

const BUILD: Step<Args> = step("build", |_| cargo_each("build", &[&ALL, &THE_E2E], &[]));
const TEST: Step<Args> = step("test", |args| test(cargo(&["test", "--workspace"]), args));
const PACKAGES: Step<Args> = step("packages", |_| packages::install());
const E2E: Step<Args> = step("e2e", e2e);

/// The workspace in one go, here and in the tests: with the features of one crate alone Wasmtime is compiled again.
const ALL: [&str; 2] = ["--workspace", "--all-targets"];
/// `--all-targets` leaves out what a plain `cargo test` leaves out.
const THE_E2E: [&str; 3] = ["--workspace", "--test", "e2e"];
const ALL_FEATURES: [&str; 3] = ["--workspace", "--all-targets", "--all-features"];
const MINIMAL: [&str; 4] = [
    "--package",
    "wash-runtime",
    "--all-targets",
    "--no-default-features",
];

/// Runs the steps.
pub fn run(args: &Args) -> Result<()> {
    let plan = Plan {
        skip: args.skip.iter().cloned().collect(),
        keep_going: args.keep_going,
    };
    if args.filters.is_empty() {
        return steps::run(&STEPS, &plan, args);
    }
    eprintln!(
        "!!! only tests that match {}: no other check is made",
        args.filters.join(", ")
    );
    steps::run(&FILTERED_STEPS, &plan, args)
}

fn doc() -> Result<Outcome> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    cargo::run(command).map(|()| Outcome::Done)
}

fn test(mut command: Command, args: &Args) -> Result<Outcome> {
    command.arg("--").args(&args.filters).args(&args.test_args);
    cargo::run(command).map(|()| Outcome::Done)
}

/// The Go programs and the large guests are built on their own, so that the tests' time is that of the tests.
fn e2e(args: &Args) -> Result<Outcome> {
    let mut install = Command::new(cargo::built("washlet-playground")?);
    install
        .arg("install")
        .env("WASHLET_E2E_KUBERNETES", &args.kubernetes);
    cargo::run(install)?;

    let washlet = cargo::built("washlet")?;
    if !washlet.is_file() {
        bail!(
            "{} is missing: the step `build` makes it",
            washlet.display()
        );
    }
    let mut command = cargo(&["test", "--workspace", "--test", "e2e"]);
    command
        .env("WASHLET_BIN", washlet)
        .env("WASHLET_E2E_KUBERNETES", &args.kubernetes);
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        // Fifty frames of a runtime under each error hide what the tests print; panics keep theirs.
        command.env("RUST_LIB_BACKTRACE", "0");
    }
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        // These tests wait more than they work: more of them than there are cores run at once.
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        command.env("RUST_TEST_THREADS", (cores * 3).min(12).to_string());
    }
    test(command, args)
}

fn clippy(selections: &[&[&str]]) -> Result<Outcome> {
    cargo_each("clippy", selections, &["--", "-D", "warnings"])
}

/// Runs a cargo command for one selection after the other.
fn cargo_each(command: &str, selections: &[&[&str]], arguments: &[&str]) -> Result<Outcome> {
    for selection in selections {
        cargo::run(cargo(&[&[command], *selection, arguments].concat()))?;
    }
    Ok(Outcome::Done)
}

const fn step(name: &'static str, run: fn(&Args) -> Result<Outcome>) -> Step<Args> {
    Step { name, run }
}
