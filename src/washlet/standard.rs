//! The host that the agent and `washlet run` have in common: every plugin that is built in, and a registry client.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    engine::{Engine, EngineError},
    host::{BuildError, Host, HostBuilder, StartError},
    oci::{Puller, PullerConfig, StoreError},
    plugin::{wasi_config::WasiConfig, wasi_http::HttpServer, wasi_logging::WasiLogging},
    source::Fetcher,
};

/// The host cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
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
}

/// What differs between hosts.
pub(super) struct Standard<'a> {
    /// The host's name; none means the machine's.
    pub id: Option<&'a str>,
    pub http_listen: SocketAddr,
    /// Where images and compiled code are kept.
    pub state_dir: &'a Path,
    pub registry_certs_dir: Option<PathBuf>,
}

/// A host that runs.
pub(super) struct Started {
    pub host: Arc<Host>,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// What it serves HTTP with.
    pub server: Arc<HttpServer>,
    /// What it pulls images with.
    pub images: Arc<Puller>,
}

impl Standard<'_> {
    /// Starts it.
    pub async fn start(self) -> Result<Started, SetupError> {
        let engine = Engine::builder()
            .cache_dir(self.state_dir.join("compiled"))
            .build()?;
        let images = Arc::new(Puller::new(PullerConfig {
            certs_dir: self.registry_certs_dir,
            ..PullerConfig::new(self.state_dir.join("images"))
        })?);
        let http = Arc::new(HttpServer::new(self.http_listen));
        let mut builder = HostBuilder::new()
            .with_engine(engine)
            .with_fetcher(Fetcher::new().with_registry(images.clone()))
            .with_plugin(http.clone())?
            .with_plugin(Arc::new(WasiConfig::default()))?
            .with_plugin(Arc::new(WasiLogging::default()))?;
        if let Some(id) = self.id {
            builder = builder.with_id(id);
        }
        let host = builder.build()?.start().await?;
        Ok(Started {
            host,
            http: http.addr().unwrap_or(self.http_listen),
            server: http,
            images,
        })
    }
}
