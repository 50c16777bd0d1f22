//! Putting a host together: an engine, plugins, and where components come from.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::broadcast;

use super::{CHANGES, Host, Shared};
use crate::{
    engine::{Engine, EngineError},
    plugin::{
        HostPlugin, Notices, PluginStartError,
        wasi::{self, VolumeStore, VolumesError},
        wasi_cli::WasiCli,
    },
    source::Fetcher,
    spec::BlockedNetwork,
    wit::InterfaceId,
};

/// Hosts that were built so far in this process, by which they are told apart.
static HOSTS: AtomicU64 = AtomicU64::new(0);

/// Collects what a host is made of.
///
/// The order of plugins does not matter. [`HostBuilder::build`] touches nothing outside the process; sockets are opened by
/// [`UnstartedHost::start`].
#[derive(Default)]
pub struct HostBuilder {
    id: Option<String>,
    engine: Option<Engine>,
    fetcher: Fetcher,
    plugins: Vec<Arc<dyn HostPlugin>>,
    volumes_dir: Option<PathBuf>,
    volume_space: Option<u64>,
    host_path_roots: Vec<PathBuf>,
    host_loopback: bool,
    blocked_networks: Vec<BlockedNetwork>,
}

/// A host cannot be built from these parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The same plugin was given twice.
    #[error("plugin {0} was given twice")]
    DuplicatePlugin(&'static str),
    /// Two plugins offer the same interface.
    #[error("plugins {first} and {second} both offer {interface}; give only one of them")]
    DuplicateOffer {
        /// The interface.
        interface: Box<InterfaceId>,
        /// The plugin that was given first.
        first: &'static str,
        /// The plugin that was given second.
        second: &'static str,
    },
    /// No engine was given, and the default one cannot be made.
    #[error("no engine was given, and the default one cannot be made")]
    Engine(#[from] EngineError),
}

/// A host could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A plugin could not open what it needs.
    #[error(transparent)]
    Plugin(#[from] PluginStartError),
    /// The workloads' volumes cannot be set up.
    #[error(transparent)]
    Volumes(#[from] VolumesError),
}

/// A host that is put together but holds nothing of the machine yet.
pub struct UnstartedHost {
    id: String,
    shared: Shared,
    volumes_dir: Option<PathBuf>,
    volume_space: Option<u64>,
    host_path_roots: Vec<PathBuf>,
}

impl HostBuilder {
    /// A host of no plugins and the default engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs components on this engine.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Names the host; by default it has the machine's name.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Gets components by this fetcher; the default one knows bytes and files, but no registry.
    #[must_use]
    pub fn with_fetcher(mut self, fetcher: Fetcher) -> Self {
        self.fetcher = fetcher;
        self
    }

    /// Keeps the workloads' volumes in this directory, which is made (with mode 0700) if it does not exist; by default in a
    /// temporary one. Several hosts may share it. What one of them leaves behind when it is killed, the next one removes.
    #[must_use]
    pub fn with_volumes_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.volumes_dir = Some(directory.into());
        self
    }

    /// Limits what all ephemeral volumes of the host's workloads may hold together, in bytes; what would go beyond fails with
    /// `insufficient-space`. By default each has its own limit alone.
    #[must_use]
    pub fn with_volume_space(mut self, bytes: u64) -> Self {
        self.volume_space = Some(bytes);
        self
    }

    /// Allows `hostPath` volumes below this directory of the machine, with all symbolic links followed. By default none are
    /// allowed. May be called several times.
    #[must_use]
    pub fn with_host_path_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.host_path_roots.push(root.into());
        self
    }

    /// Networks that no socket of a component may connect to, whatever was granted; for calls by `wasi:http` it is
    /// [`HttpServer::block_networks`](crate::plugin::wasi_http::HttpServer::block_networks).
    #[must_use]
    pub fn with_blocked_networks(mut self, networks: Vec<BlockedNetwork>) -> Self {
        self.blocked_networks = networks;
        self
    }

    /// Lets components connect to the machine's own loopback, at the ports that they name in `allowedHostLoopbackPorts`. By
    /// default a workload that names any is refused: what listens there is rarely made for strangers.
    #[must_use]
    pub fn allow_host_loopback(mut self, allow: bool) -> Self {
        self.host_loopback = allow;
        self
    }

    /// Adds a capability.
    ///
    /// # Errors
    /// [`BuildError::DuplicatePlugin`], [`BuildError::DuplicateOffer`].
    pub fn with_plugin(mut self, plugin: Arc<dyn HostPlugin>) -> Result<Self, BuildError> {
        if self.plugins.iter().any(|p| p.id() == plugin.id()) {
            return Err(BuildError::DuplicatePlugin(plugin.id()));
        }
        let mut offers: HashMap<InterfaceId, &'static str> = wasi::offers()
            .into_iter()
            .map(|interface| (interface, wasi::ID))
            .collect();
        offers.extend(
            self.plugins
                .iter()
                .flat_map(|p| p.world().imports.into_iter().map(|i| (i, p.id()))),
        );
        for interface in plugin.world().imports {
            if let Some(first) = offers.get(&interface) {
                return Err(BuildError::DuplicateOffer {
                    first,
                    second: plugin.id(),
                    interface: Box::new(interface),
                });
            }
        }
        self.plugins.push(plugin);
        Ok(self)
    }

    /// Puts the host together.
    ///
    /// # Errors
    /// [`BuildError::Engine`], if no engine was given and the default one cannot be made.
    pub fn build(self) -> Result<UnstartedHost, BuildError> {
        let engine = match self.engine {
            Some(engine) => engine,
            None => Engine::builder().build()?,
        };
        let mut offers = wasi::offers();
        offers.extend(self.plugins.iter().flat_map(|p| p.world().imports));
        offers.sort();
        let (changes, _) = broadcast::channel(CHANGES);
        let mut plugins = self.plugins;
        plugins.push(Arc::new(WasiCli::default()));
        Ok(UnstartedHost {
            id: self.id.unwrap_or_else(machine_name),
            volumes_dir: self.volumes_dir,
            volume_space: self.volume_space,
            host_path_roots: self.host_path_roots,
            shared: Shared {
                number: HOSTS.fetch_add(1, Ordering::Relaxed),
                supervised: Mutex::default(),
                engine,
                fetcher: self.fetcher,
                plugins,
                host_loopback: self.host_loopback,
                blocked_networks: self.blocked_networks.into(),
                offers,
                changes,
                volumes: Arc::default(),
                notices: Notices::channel(),
            },
        })
    }
}

impl UnstartedHost {
    /// Opens what the plugins need and begins to take workloads. Must be called within a Tokio runtime, which then runs the
    /// workloads' supervisors.
    ///
    /// # Errors
    /// [`StartError`], for example for a port that is taken.
    pub async fn start(mut self) -> Result<Arc<Host>, StartError> {
        let mut volumes = VolumeStore::open(self.volumes_dir.as_deref(), &self.host_path_roots)?;
        if let Some(bytes) = self.volume_space {
            volumes = volumes.with_space(bytes);
        }
        self.shared.volumes = Arc::new(volumes);
        for plugin in &self.shared.plugins {
            plugin.start().await?;
        }
        Ok(Arc::new(Host {
            id: self.id,
            started: SystemTime::now(),
            next_id: AtomicU64::new(1),
            shared: Arc::new(self.shared),
        }))
    }
}

/// The machine's name, as the kernel has it.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}
