//! The helm that this repository pins, built if need be: `cargo xtask generate` renders the chart with it.

use std::{os::unix::process::CommandExt as _, process::Command, process::ExitCode};

use washlet_e2e::cluster::install_helm;

fn main() -> ExitCode {
    let error = match install_helm() {
        // Comes back only when it can't be started.
        Ok(helm) => Command::new(helm)
            .args(std::env::args_os().skip(1))
            .exec()
            .into(),
        Err(error) => error,
    };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
