//! The checked-in components against their sources.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, steps::Outcome};

/// What the script exits with when the toolchain is not at hand.
const NO_TOOLCHAIN: i32 = 3;

/// Set to `required` where the toolchain is expected: without it this fails there, in place of a note that nobody reads.
const GUESTS: &str = "WASHLET_GUESTS";

/// Compares checksums always, and the bytes where they can be built.
pub fn check() -> Result<Outcome> {
    cargo::run(script("--verify"))?;
    let mut rebuild = script("--check");
    let status = rebuild
        .stdin(Stdio::null())
        .status()
        .context("starting e2e/guests/build")?;
    match status.code() {
        Some(0) => Ok(Outcome::Done),
        Some(NO_TOOLCHAIN) if std::env::var_os(GUESTS).is_some_and(|v| v == "required") => {
            bail!("e2e/guests/build --check: no toolchain, and {GUESTS} is `required`")
        }
        Some(NO_TOOLCHAIN) => Ok(Outcome::NotRun(
            "the checksums fit, but the components were not rebuilt: their toolchain is not at hand".to_owned(),
        )),
        _ => bail!("e2e/guests/build --check: {status}"),
    }
}

fn script(argument: &str) -> Command {
    let mut command = Command::new(crate::root().join("e2e/guests/build"));
    command.arg(argument);
    command
}
