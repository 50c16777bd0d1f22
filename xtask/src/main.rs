//! `cargo xtask`: the chores of this repository, with nothing to install beside the languages that CONTRIBUTING.md names.

mod bench;
mod cargo;
mod chart;
mod cluster;
mod deny;
mod generate;
mod guests;
mod image;
mod packages;
mod steps;
mod test;
mod values;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

/// The chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Runs every check and every test; the last step is the end-to-end tests on a real control plane.
    Test(test::Args),
    /// Starts a control plane and a registry to try things on, and stays until Ctrl-C.
    Cluster(cluster::Args),
    /// Compares with peers and limits, and prints one table; takes the better part of an hour and a quiet machine.
    Bench(bench::Args),
    /// Writes the container image to a file, without a container runtime.
    Image(image::Args),
    /// Writes the generated files: `crds/`, the chart's copy of them and table of values, `manifests/install.yaml`.
    Generate(generate::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Test(args) => test::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Generate(args) => generate::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
