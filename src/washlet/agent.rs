//! The node agent: runs the `Workload` objects of its node on an embedded host, and reports what comes of them.
//!
//! [`Agent::bind`] opens everything that can be taken by somebody else (ports, the state directory) and fails if it is;
//! [`Agent::run`] does not fail: an API server or a registry that is away is waited for.

mod admin;
mod control;
mod effects;
mod events;
mod lease;
mod metrics;
mod node;
mod references;
mod state_dir;
mod tracked;
mod watch;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use kube::{Client, config::KubeConfigOptions};
use tokio::sync::watch as channel;

use self::{
    admin::{Admin, Health},
    control::Control,
    effects::Effects,
    events::Events,
    lease::{LeaseKeeper, Standing},
    metrics::Metrics,
    node::{HostObject, Load},
    state_dir::StateDir,
};
use super::{
    shutdown::Shutdown,
    standard::{SetupError, Standard},
};
use crate::host::Host;

/// The field manager of all that agents apply; one name for all of them, so that a workload that moves leaves nothing behind.
const FIELD_MANAGER: &str = "washlet-agent";
/// Reads and writes of the API server that run at once.
const EFFECTS: usize = 16;
/// Longest time for all workloads to finish their requests at shutdown: with the last writes and the release of the Lease, less
/// than a minute.
const DRAIN_LIMIT: Duration = Duration::from_secs(45);
/// Longest time for the Lease to be released.
const RELEASE_LIMIT: Duration = Duration::from_secs(6);

/// What the agent is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node that the agent runs on: the id of its host.
    pub node_name: String,
    /// Where its Host and Lease are; none means the kubeconfig's namespace.
    pub system_namespace: Option<String>,
    /// The kubeconfig; none means the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces whose workloads it runs; empty means all.
    pub namespaces: Vec<String>,
    /// Where workloads are served.
    pub http_listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin_listen: SocketAddr,
    /// Where images and compiled code are kept.
    pub state_dir: PathBuf,
    /// Registries' certificates and mirrors, in containerd's layout.
    pub registry_certs_dir: Option<PathBuf>,
}

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The kubeconfig cannot be used.
    #[error("--kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The pod's service account cannot be used.
    #[error("no --kubeconfig is given, and this is no pod with a service account: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// No client can be made of the configuration.
    #[error("no Kubernetes client can be made of the configuration: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The state directory cannot be used.
    #[error("--state-dir {}: {source}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The admin listener cannot be bound.
    #[error("--admin-listen {addr}: {source}; choose another port, or stop who has it")]
    AdminListen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The host cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// An agent that has all it needs from the machine.
pub struct Agent {
    node: Arc<str>,
    namespace: String,
    namespaces: Vec<String>,
    instance: String,
    client: Client,
    host: Arc<Host>,
    http: SocketAddr,
    admin: Admin,
    _state: StateDir,
}

impl Agent {
    /// Opens what the agent needs from the machine. The API server need not answer yet.
    ///
    /// # Errors
    /// [`AgentError`], naming the flag.
    pub async fn bind(config: Config) -> Result<Self, AgentError> {
        // Two TLS libraries' worth of defaults are compiled in nowhere: this is the only one. An error means it is set.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kube_config = kube_config(&config).await?;
        let namespace = config
            .system_namespace
            .clone()
            .unwrap_or_else(|| kube_config.default_namespace.clone());
        let client = Client::try_from(kube_config).map_err(|e| AgentError::Client(Box::new(e)))?;
        let state = StateDir::open(&config.state_dir).map_err(|source| AgentError::StateDir {
            path: config.state_dir.clone(),
            source,
        })?;
        let admin =
            Admin::bind(config.admin_listen)
                .await
                .map_err(|source| AgentError::AdminListen {
                    addr: config.admin_listen,
                    source,
                })?;
        let standard = Standard {
            id: Some(&config.node_name),
            http_listen: config.http_listen,
            state_dir: state.path(),
            registry_certs_dir: config.registry_certs_dir,
        };
        let (host, http) = standard.start().await?;
        tracing::info!(node = config.node_name, %http, admin = %admin.addr(), "listening");
        Ok(Self {
            instance: state.instance(),
            node: config.node_name.into(),
            namespace,
            namespaces: config.namespaces,
            client,
            host,
            http,
            admin,
            _state: state,
        })
    }

    /// Where workloads are served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Runs the node's workloads until the shutdown begins; then lets them finish, says so, and gives the Lease back.
    pub async fn run(self, shutdown: Shutdown) {
        let metrics = Metrics::default();
        let health = Health::new();
        let (standing_tx, standing) = channel::channel(Standing::Unknown);
        let (load_tx, load) = channel::channel(Load::default());
        let (release_tx, release) = channel::channel(false);
        let keeper = Keeper {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            instance: self.instance.clone(),
            http: self.http,
            interfaces: self.host.offers().iter().map(ToString::to_string).collect(),
            metrics: metrics.clone(),
        };
        let keeper = tokio::spawn(keeper.run(standing_tx, standing.clone(), release, load));
        let admin = tokio::spawn(self.admin.serve(health.clone(), metrics.registry()));

        let changes = watch::spawn(&self.client, &self.node, &self.namespaces, metrics.clone());
        let (effects, done) = Effects::new(self.client.clone(), EFFECTS);
        let control = Control {
            events: Events::spawn(self.client.clone(), self.node.to_string(), metrics.clone()),
            node: self.node,
            host: self.host.clone(),
            effects,
            metrics,
            health,
            standing,
            load: load_tx,
        };
        control
            .run(changes, done, shutdown.clone(), drain(self.host, shutdown))
            .await;

        // The keeper ends by itself when it has released the Lease, or was too slow to.
        let _ = release_tx.send(true);
        let _ = tokio::time::timeout(RELEASE_LIMIT, keeper).await;
        admin.abort();
        tracing::info!("drained");
    }
}

/// Once the shutdown begins, lets requests finish.
async fn drain(host: Arc<Host>, shutdown: Shutdown) {
    shutdown.begun().await;
    tokio::select! {
        cut = host.stop(DRAIN_LIMIT) => if cut > 0 {
            tracing::warn!(workloads = cut, "not drained in time; cut");
        },
        () = shutdown.cut() => tracing::warn!("asked twice to stop; not waiting for requests in flight"),
    }
}

async fn kube_config(config: &Config) -> Result<kube::Config, AgentError> {
    let mut kube_config = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster()?,
    };
    kube_config.connect_timeout = Some(Duration::from_secs(10));
    Ok(kube_config)
}

/// Keeps the agent's own objects: the Lease and the Host.
struct Keeper {
    client: Client,
    namespace: String,
    node: Arc<str>,
    instance: String,
    http: SocketAddr,
    interfaces: Vec<String>,
    metrics: Metrics,
}

impl Keeper {
    async fn run(
        self,
        standing_tx: channel::Sender<Standing>,
        standing: channel::Receiver<Standing>,
        mut release: channel::Receiver<bool>,
        load: channel::Receiver<Load>,
    ) {
        let owner = tokio::select! {
            owner = node::owner(&self.client, &self.node) => owner,
            _ = release.wait_for(|r| *r) => return,
        };
        let object = HostObject {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            node: self.node.to_string(),
            http: self.http,
            interfaces: self.interfaces,
            owner: owner.clone(),
        };
        let host = tokio::spawn(object.run(standing, load));
        let lease = LeaseKeeper::new(
            self.client,
            &self.namespace,
            &self.node,
            self.instance,
            owner,
            self.metrics,
        );
        lease.run(standing_tx, release).await;
        host.abort();
    }
}
