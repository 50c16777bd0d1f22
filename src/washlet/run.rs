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
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::shutdown::Shutdown;
use crate::{
    engine::{Engine, EngineError},
    host::{BuildError, Host, HostBuilder, StartError},
    oci::{Puller, PullerConfig, StoreError},
    plugin::{wasi_config::WasiConfig, wasi_http::HttpServer, wasi_logging::WasiLogging},
    source::Fetcher,
    spec,
};

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
    /// Whether to take over changed files.
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
    /// The engine cannot be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The image store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The host cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
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
    let loaded = manifest::load(&config.paths)?;
    let temporary = tempfile::tempdir().map_err(RunError::StateDir)?;
    let state = config.state_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let (host, addr) = start_host(&config, &state).await?;
    let mut report = report::Report::new(addr);
    report.loaded(&loaded);
    let mut changed = config.watch.then(|| files::watch(&config.paths, &loaded.files)).transpose()?;

    let mut host_changes = host.changes();
    let mut running = Running { host: host.clone(), ids: BTreeSet::new() };
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
                Err(error) => report.broken(&error),
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

async fn start_host(config: &Config, state: &std::path::Path) -> Result<(Arc<Host>, SocketAddr), RunError> {
    let engine = Engine::builder().cache_dir(state.join("compiled")).build()?;
    let puller = Puller::new(PullerConfig {
        certs_dir: config.registry_certs_dir.clone(),
        ..PullerConfig::new(state.join("images"))
    })?;
    let http = Arc::new(HttpServer::new(config.http_listen));
    let host = HostBuilder::new()
        .with_engine(engine)
        .with_fetcher(Fetcher::new().with_registry(Arc::new(puller)))
        .with_plugin(http.clone())?
        .with_plugin(Arc::new(WasiConfig::default()))?
        .with_plugin(Arc::new(WasiLogging::default()))?
        .build()?
        .start()
        .await?;
    Ok((host, http.addr().unwrap_or(config.http_listen)))
}
