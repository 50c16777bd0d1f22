//! `washlet run`: the workloads of some YAML files on this machine, with no cluster.
//!
//! The files are what one would apply to a cluster. Secrets and ConfigMaps among them are used; kinds that mean nothing here
//! are named and skipped. A changed file is taken over while it runs; a file that has become wrong leaves what runs alone.

mod files;
mod jobs;
mod manifest;
mod reload;
mod report;
mod screen;
mod table;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::MissedTickBehavior;

use super::{
    agent::Memory,
    shutdown::Shutdown,
    standard::{Http, SetupError, Standard},
};
use crate::{engine::CompilerProcess, spec::BlockedNetwork};

pub use manifest::{ManifestError, Problem};
pub use screen::Screen;

/// Longest time for requests to finish at the end.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// How often the table is brought up to date.
const REDRAW: Duration = Duration::from_millis(250);

/// What `washlet run` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files, folders, or `-` for standard input.
    pub paths: Vec<PathBuf>,
    /// How workloads are served.
    pub http: Http,
    /// Where images and compiled code are kept; none means a temporary folder.
    pub state_dir: Option<PathBuf>,
    /// Registries' certificates and mirrors, in containerd's layout.
    pub registry_certs_dir: Option<PathBuf>,
    /// What compiled code may take on disk; none means 4 GiB.
    pub cache_space: Option<Memory>,
    /// Directories below which `hostPath` volumes are allowed.
    pub host_path_roots: Vec<PathBuf>,
    /// Whether components may be granted ports of this machine's loopback.
    pub allow_host_loopback: bool,
    /// Networks that no component may connect to.
    pub block_networks: Vec<BlockedNetwork>,
    /// Where components are compiled, and within which limits; none means in this process.
    pub compiler: Option<CompilerProcess>,
    /// Whether to take over changed files; never with standard input among the paths.
    pub watch: bool,
    /// The terminal for the live table; without one, plain lines are printed.
    pub screen: Option<Screen>,
}

/// `washlet run` cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Files cannot be read, or are wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The state directory cannot be used.
    #[error("--state-dir: {0}")]
    StateDir(#[source] io::Error),
    /// The host cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Files cannot be watched.
    #[error("files cannot be watched ({0}); use --no-watch")]
    Watch(#[from] notify::Error),
}

/// Runs until the shutdown begins, and lets requests finish. With nothing to watch and nothing but jobs to run it ends with them:
/// each is run once, unless its `restartPolicy` says otherwise. It also ends if all that is left cannot begin, whatever it is.
///
/// Returns the exit code: that of the first job that failed, 1 for what cannot begin, else 0.
///
/// # Errors
/// [`RunError`], before anything runs.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<u8, RunError> {
    // An error means that the program has chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut loaded = manifest::load(&config.paths, &manifest::Before::default())
        .map_err(|rejected| rejected.error)?;
    let temporary = tempfile::tempdir().map_err(RunError::StateDir)?;
    let state = config
        .state_dir
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let standard = Standard {
        compiler: config.compiler,
        block_networks: config.block_networks,
        id: None,
        http: config.http,
        state_dir: &state,
        registry_certs_dir: config.registry_certs_dir,
        cache_space: config.cache_space.map(Memory::bytes),
        volume_space: None,
        host_path_roots: config.host_path_roots,
        allow_host_loopback: config.allow_host_loopback,
    };
    let started = standard.start().await?;
    let host = started.host;
    let counts = |id: &str| started.server.snapshot(id);
    let mut report = report::Report::new(started.http, started.https, config.screen.clone());
    let has_screen = config.screen.is_some();
    let _given_back = GivenBack(config.screen);
    report.loaded(&loaded);
    // Standard input can be read once only, so what was read from it could not be kept at a reload.
    let stdin = config.paths.iter().any(|path| path == Path::new("-"));
    let mut watcher = (config.watch && !stdin)
        .then(|| files::watch(&config.paths, &loaded.files))
        .transpose()?;

    let unwatched = watcher.is_none();
    if unwatched {
        jobs::once(&mut loaded.workloads);
    }
    let mut host_changes = host.changes();
    let mut running = reload::Running::new(host.clone(), config.paths, loaded);
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.begun() => break,
            id = host_changes.recv() => {
                match id {
                    Ok(id) => report.observed(&id, host.observe(&id)),
                    // One that fell behind looks at all of them.
                    Err(_) => running.ids().for_each(|id| report.observed(id, host.observe(id))),
                }
                let list = if unwatched { host.list() } else { Vec::new() };
                if let Some(code) = jobs::exit_code(&list, running.ids().count()) {
                    // The word of some of them may still be on its way.
                    list.into_iter().for_each(|o| report.observed(&o.id.clone(), Some(o)));
                    host.stop(DRAIN_LIMIT).await;
                    return Ok(code);
                }
            },
            change = running.change(&watcher) => {
                if let Some(watcher) = &mut watcher {
                    running.reload(change, watcher, &mut report);
                }
            },
            _ = redraw.tick(), if has_screen => report.draw(counts),
        }
    }
    report.draining();
    let stop = async {
        host.stop(DRAIN_LIMIT).await;
        // The end of the last answer may have been taken from its guest and not been sent yet.
        started.server.send_away();
        started.server.close_connections().await;
    };
    tokio::select! {
        () = stop => {}
        () = shutdown.cut() => {}
    }
    Ok(0)
}

/// Gives the terminal back, however the command ends.
struct GivenBack(Option<Screen>);

impl Drop for GivenBack {
    fn drop(&mut self) {
        if let Some(screen) = &self.0 {
            screen.close();
        }
    }
}
