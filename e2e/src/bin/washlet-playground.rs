//! The program behind `cargo xtask cluster`: starts the playground, tells how to use it, and stays.
//!
//! With `install` it only builds the programs and guests that the tests need, so that `cargo xtask test` can time it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use washlet_e2e::{
    cluster::{self, Version},
    languages, node,
    playground::Playground,
    registry,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("install") => {
            cluster::install(Version::wanted()?)?;
            if node::lacks().is_none() {
                node::install()?;
            }
            registry::install()?;
            languages::install()
        }
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build();
            runtime.context("making a runtime")?.block_on(play())
        }
        Some(other) => bail!("{other}: the only argument is `install`"),
    }
}

async fn play() -> Result<()> {
    // Before anything starts: a Ctrl-C in the middle of it ends this process, and the kernel ends the rest.
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let playground = tokio::select! {
        started = Playground::start() => started?,
        _ = tokio::signal::ctrl_c() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("{}", playground.instructions());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("ending the playground");
    drop(playground);
    Ok(())
}
