//! The program behind the cluster's figures of `cargo xtask bench`: one line of JSON for each on standard output, progress on
//! standard error.

use std::process::ExitCode;

use anyhow::{Context, Result};
use washlet_e2e::bench::{self, Options};

const USAGE: &str = "usage: washlet-bench-cluster --washlet PATH [--figures P6,P7,P8,P13,P14] [--workloads N] [--rounds N]

  --washlet PATH   the binary to measure: a release build
  --figures LIST   all by default; P7 and P8 are measured together
  --workloads N    in place of 5000 (P7, P8) and 1000 (P13, P14), to try things out
  --rounds N       rounds of each figure, which is the median over them (5 by default); ten times as many of P6";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error:#}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("making a runtime")?;
    runtime.block_on(bench::run(options))
}
