//! Compares washlet with its peers and with what the machine can do, on the same component, in the same run.
//!
//! Servers run on one core and the load on another. Rounds of all that is compared are interleaved, and a figure is a median
//! over the rounds; a ratio is the median of the rounds' ratios, so that a machine that is slow for a while is slow for both.
//! One line of JSON for each figure goes to standard output, what is going on to standard error.

mod figure;
mod figures;
mod load;
mod peer;
mod server;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;

// As washlet has, for the sake of the limits.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares washlet with its peers and with what the machine can do.
#[derive(Parser)]
#[command(name = "washlet-bench")]
enum Command {
    /// Measures, and prints a line of JSON for each figure.
    Run(Options),
    /// The limit that HTTP figures are compared with: a bare hyper server.
    #[command(hide = true)]
    Peer {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// The limit of the same with a component: a bare program of hyper and Wasmtime.
    #[command(hide = true)]
    PeerComponent {
        /// Where to listen.
        listen: SocketAddr,
        /// What answers.
        component: PathBuf,
        /// What it is written for.
        wasi: peer::Wasi,
        /// By which instances.
        instances: peer::Instances,
    },
    /// A neighbour of a bare server that misbehaves, until standard input ends.
    #[command(hide = true)]
    Pest {
        /// What it does.
        pest: peer::Pest,
    },
}

/// What to measure, and with what.
#[derive(clap::Args)]
pub struct Options {
    /// The release build of washlet.
    #[arg(long)]
    washlet: PathBuf,
    /// `wasmtime`, built from its published crate; without it nothing is compared with it.
    #[arg(long)]
    wasmtime: Option<PathBuf>,
    /// Only these figures, for example `P1,P9`.
    #[arg(long, value_delimiter = ',')]
    figures: Vec<String>,
    /// Rounds; a figure is the median over them. P4 and P12 have twelve and six times as many, as much shorter.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round, for each of those that are compared.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The root of the repository, for its guests.
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let result: Result<()> = match Command::parse() {
        Command::Run(options) => figures::run(&options),
        Command::Peer { listen } => peer::serve_hyper(listen),
        Command::PeerComponent {
            listen,
            component,
            wasi,
            instances,
        } => peer::serve_component(listen, &component, wasi, instances),
        Command::Pest { pest } => {
            peer::pester(pest);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
