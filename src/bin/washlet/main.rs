//! `washlet`: WebAssembly components as Kubernetes workloads. Arguments, wiring, exit code; all else is the library's.

mod args;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use wash_runtime::{
    engine::compile_worker,
    washlet::{
        agent::Agent, api, controller::Controller, probe, run, run::Screen, shutdown::Shutdown,
    },
};

use args::{Args, Command, CrdArgs, LogFormat};

// Measured: a tenth more requests a second than with the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A wrong flag ends here with exit code 2.
    let args = Args::parse();
    match start(args) {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done about a closed standard error.
            let _ = writeln!(std::io::stderr(), "washlet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Crds(crds) => return print_crds(crds).map(|()| ExitCode::SUCCESS),
        Command::Compile { order } => return Ok(compile_worker(order)),
        _ => {}
    }
    // `run` says on standard output what the agent logs; what guests write is shown either way.
    let quiet = matches!(args.command, Command::Run(_) | Command::Probe(_));
    let screen = match &args.command {
        Command::Run(_) => {
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            Screen::of_terminal(std::env::var("TERM").ok().as_deref(), colour)
        }
        _ => None,
    };
    let _written = log(
        args.log_format,
        if quiet {
            "warn,washlet::guest=info,wash_runtime::host::supervisor=error"
        } else {
            "info"
        },
        screen.clone(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads can be started")?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("signals cannot be handled")?;
        match args.command {
            Command::Agent(agent) => {
                Agent::bind(agent.config()).await?.run(shutdown).await;
                Ok(ExitCode::SUCCESS)
            }
            Command::Controller(controller) => {
                let controller = Controller::bind(controller.config()).await?;
                controller.run(shutdown).await;
                Ok(ExitCode::SUCCESS)
            }
            Command::Run(arguments) => {
                let config = run::Config {
                    screen,
                    ..arguments.config()
                };
                let code = run::run(config, shutdown).await?;
                Ok(ExitCode::from(code))
            }
            Command::Probe(arguments) => tokio::select! {
                probed = probe::probe(arguments.config()) => {
                    probed?;
                    Ok(ExitCode::SUCCESS)
                }
                () = shutdown.begun() => anyhow::bail!("asked to stop before all had answered"),
            },
            Command::Crds(_) | Command::Compile { .. } => Ok(ExitCode::SUCCESS),
        }
    });
    // What is left are tasks that nobody waits for; they end with the process.
    runtime.shutdown_background();
    ended
}

fn print_crds(args: &CrdArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for crd in api::crds() {
        if args
            .kind
            .as_ref()
            .is_none_or(|kind| kind.eq_ignore_ascii_case(&crd.spec.names.kind))
        {
            write!(out, "---\n{}", api::yaml(&crd)?)?;
        }
    }
    Ok(())
}

/// Logs go to standard error: standard output belongs to the command.
///
/// They are written by a thread of their own, and dropped when it falls behind: a full pipe must not hold up requests. What
/// is returned writes the rest when it is dropped.
fn log(format: Option<LogFormat>, by_default: &str, screen: Option<Screen>) -> WorkerGuard {
    use std::io::IsTerminal as _;
    let terminal = std::io::stderr().is_terminal();
    let (writer, written) = match screen.filter(|_| terminal) {
        Some(screen) => tracing_appender::non_blocking(screen),
        None => tracing_appender::non_blocking(std::io::stderr()),
    };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(by_default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    }) {
        LogFormat::Text => builder.with_ansi(colour).init(),
        LogFormat::Json => builder.json().init(),
    }
    written
}
