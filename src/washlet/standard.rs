//! The host that the agent and `washlet run` have in common: every plugin that is built in, and a registry client.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use super::convert::{QuantityError, bytes};
use crate::{
    engine::{CompilerProcess, Engine, EngineError},
    host::{BuildError, Host, HostBuilder, StartError},
    oci::{Puller, PullerConfig, StoreError},
    plugin::{
        wasi_config::WasiConfig,
        wasi_http::{HttpServer, TlsFiles},
        wasi_logging::WasiLogging,
    },
    source::Fetcher,
    spec::BlockedNetwork,
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

/// How workloads are served.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where.
    pub listen: SocketAddr,
    /// Where by HTTPS too, and with which certificate.
    pub https: Option<(SocketAddr, TlsFiles)>,
    /// Largest body of a request.
    pub max_body: MaxBody,
}

/// A size in bytes; written as a Kubernetes quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxBody(u64);

impl FromStr for MaxBody {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytes(text).map(Self)
    }
}

impl Http {
    /// Plain HTTP at this address, with what limits there are by default.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            https: None,
            max_body: MaxBody(HttpServer::MAX_BODY),
        }
    }

    fn server(&self) -> HttpServer {
        let server = HttpServer::new(self.listen).max_body(self.max_body.0);
        match &self.https {
            Some((address, files)) => server.https(*address, files.clone()),
            None => server,
        }
    }
}

/// What differs between hosts.
pub(super) struct Standard<'a> {
    /// The host's name; none means the machine's.
    pub id: Option<&'a str>,
    pub http: Http,
    /// Where images and compiled code are kept.
    pub state_dir: &'a Path,
    pub registry_certs_dir: Option<PathBuf>,
    /// Where components are compiled; none means in this process.
    pub compiler: Option<CompilerProcess>,
    /// What compiled code may take on disk, in bytes; none means what the engine does by default.
    pub cache_space: Option<u64>,
    /// What all ephemeral volumes may hold together, in bytes; none means what their limits say.
    pub volume_space: Option<u64>,
    /// Directories below which `hostPath` volumes are allowed.
    pub host_path_roots: Vec<PathBuf>,
    pub allow_host_loopback: bool,
    /// Networks that no component may connect to.
    pub block_networks: Vec<BlockedNetwork>,
}

/// A host that runs.
pub(super) struct Started {
    pub host: Arc<Host>,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where it serves HTTPS.
    pub https: Option<SocketAddr>,
    /// What it serves HTTP with.
    pub server: Arc<HttpServer>,
    /// What it pulls images with.
    pub images: Arc<Puller>,
}

impl Standard<'_> {
    /// Starts it.
    pub async fn start(self) -> Result<Started, SetupError> {
        let mut engine = Engine::builder().cache_dir(self.state_dir.join("compiled"));
        if let Some(bytes) = self.cache_space {
            engine = engine.cache_space(bytes);
        }
        if let Some(compiler) = self.compiler {
            engine = engine.compile_apart(compiler);
        }
        let engine = engine.build()?;
        let images = Arc::new(Puller::new(PullerConfig {
            certs_dir: self.registry_certs_dir,
            ..PullerConfig::new(self.state_dir.join("images"))
        })?);
        let http = self.http.server();
        let http = Arc::new(http.block_networks(self.block_networks.clone()));
        let mut builder = HostBuilder::new()
            .with_engine(engine)
            .allow_host_loopback(self.allow_host_loopback)
            .with_blocked_networks(self.block_networks)
            .with_fetcher(Fetcher::new().with_registry(images.clone()))
            .with_plugin(http.clone())?
            .with_plugin(Arc::new(WasiConfig::default()))?
            .with_plugin(Arc::new(WasiLogging::default()))?;
        builder = builder.with_volumes_dir(self.state_dir.join("volumes"));
        if let Some(bytes) = self.volume_space {
            builder = builder.with_volume_space(bytes);
        }
        for root in self.host_path_roots {
            builder = builder.with_host_path_root(root);
        }
        if let Some(id) = self.id {
            builder = builder.with_id(id);
        }
        let host = builder.build()?.start().await?;
        Ok(Started {
            host,
            http: http.addr().unwrap_or(self.http.listen),
            https: http.https_addr(),
            server: http,
            images,
        })
    }
}
