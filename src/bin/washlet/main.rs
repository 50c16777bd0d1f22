//! `washlet`: WebAssembly components as Kubernetes workloads. Arguments, wiring, exit code; all else is the library's.

mod args;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use wash_runtime::washlet::{agent::Agent, api, run, shutdown::Shutdown};

use args::{Args, Command, CrdArgs, LogFormat};

// Measured: a tenth more requests a second than with the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A wrong flag ends here with exit code 2.
    let args = Args::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done about a closed standard error.
            let _ = writeln!(std::io::stderr(), "washlet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    if let Command::Crds(crds) = &args.command {
        return print_crds(crds);
    }
    log(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads can be started")?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("signals cannot be handled")?;
        match args.command {
            Command::Agent(agent) => {
                Agent::bind(agent.config()).await?.run(shutdown).await;
                Ok(())
            }
            Command::Run(arguments) => Ok(run::run(arguments.config(), shutdown).await?),
            Command::Crds(_) => Ok(()),
        }
    });
    // What is left are tasks that nobody waits for; they end with the process.
    runtime.shutdown_background();
    ended
}

fn print_crds(args: &CrdArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for crd in api::crds() {
        if args.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(&crd.spec.names.kind)) {
            write!(out, "---\n{}", api::yaml(&crd)?)?;
        }
    }
    Ok(())
}

/// Logs go to standard error: standard output belongs to the command.
fn log(format: Option<LogFormat>) {
    use std::io::IsTerminal as _;
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => builder.with_ansi(terminal).init(),
        LogFormat::Json => builder.json().init(),
    }
}
