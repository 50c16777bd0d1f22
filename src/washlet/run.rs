//! `washlet run`: the workloads of some YAML files on this machine, with no cluster.
//!
//! The files are what one would apply to a cluster. Secrets and ConfigMaps among them are used; kinds that mean nothing here
//! are named and skipped. A changed file is taken over while it runs; a file that has become wrong leaves what runs alone.

mod files;
mod manifest;
mod report;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    shutdown::Shutdown,
    standard::{SetupError, Standard},
};
use crate::{host::Host, spec};

pub use manifest::{ManifestError, Problem};

/// Longest time for requests to finish at the end.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// What `washlet run` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files, folders, or `-` for standard input.
    pub paths: Vec<PathBuf>,
    /// Where workloads are served.
    pub http_listen: SocketAddr,
    /// Where images and compiled code are kept; none means a temporary folder.
    pub state_dir: Option<PathBuf>,
    /// Registries' certificates and mirrors, in containerd's layout.
    pub registry_certs_dir: Option<PathBuf>,
    /// Whether to take over changed files; never with standard input among the paths.
    pub watch: bool,
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

/// Runs until the shutdown begins, and lets requests finish.
///
/// # Errors
/// [`RunError`], before anything runs.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    // An error means that the program has chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loaded = manifest::load(&config.paths).map_err(|rejected| rejected.error)?;
    let temporary = tempfile::tempdir().map_err(RunError::StateDir)?;
    let state = config
        .state_dir
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let standard = Standard {
        id: None,
        http_listen: config.http_listen,
        state_dir: &state,
        registry_certs_dir: config.registry_certs_dir,
    };
    let started = standard.start().await?;
    let host = started.host;
    let mut report = report::Report::new(started.http);
    report.loaded(&loaded);
    // Standard input can be read once only, so what was read from it could not be kept at a reload.
    let stdin = config.paths.iter().any(|path| path == Path::new("-"));
    let mut changed = (config.watch && !stdin)
        .then(|| files::watch(&config.paths, &loaded.files))
        .transpose()?;

    let mut host_changes = host.changes();
    let mut running = Running {
        host: host.clone(),
        ids: BTreeSet::new(),
    };
    running.state(&loaded.workloads);
    loop {
        tokio::select! {
            () = shutdown.begun() => break,
            id = host_changes.recv() => if let Ok(id) = id {
                report.observed(&id, host.observe(&id));
            },
            () = files::changed(&mut changed) => match manifest::load(&config.paths) {
                Ok(loaded) => {
                    report.loaded(&loaded);
                    if let Some(watcher) = &mut changed {
                        watcher.follow(&loaded.files);
                    }
                    running.state(&loaded.workloads);
                }
                Err(rejected) => {
                    report.broken(&rejected.error);
                    if let Some(watcher) = &mut changed {
                        watcher.follow(&rejected.files);
                    }
                }
            },
        }
    }
    report.draining();
    tokio::select! {
        _ = host.stop(DRAIN_LIMIT) => {}
        () = shutdown.cut() => {}
    }
    Ok(())
}

/// What the host was told.
struct Running {
    host: Arc<Host>,
    ids: BTreeSet<spec::WorkloadId>,
}

impl Running {
    /// States these workloads, and no others.
    fn state(&mut self, workloads: &HashMap<spec::WorkloadId, spec::Workload>) {
        for gone in self.ids.iter().filter(|id| !workloads.contains_key(*id)) {
            self.host.remove(gone);
        }
        self.ids = workloads.keys().cloned().collect();
        for workload in workloads.values() {
            self.host.set(workload.clone());
        }
    }
}
