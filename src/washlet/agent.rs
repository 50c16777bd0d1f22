//! The node agent: runs the `Workload` objects of its node on an embedded host, and reports what comes of them.
//!
//! [`Agent::bind`] opens everything that can be taken by somebody else (ports, the state directory) and fails if it is;
//! [`Agent::run`] does not fail: an API server or a registry that is away is waited for.

mod control;
mod effects;
mod keeper;
mod leave;
mod machine;
mod metrics;
mod node;
mod notices;
mod references;
mod state_dir;
mod tracked;
mod watch;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::sync::watch as channel;

use self::{
    control::Control,
    effects::Effects,
    keeper::Keeper,
    leave::{Leave, Phase, Reported},
    metrics::Metrics,
    node::{Facts, Load},
    state_dir::StateDir,
};
use super::{
    admin::{Admin, Health},
    client::{self, ClientError},
    events::Events,
    lease::{Handover, Standing},
    shutdown::Shutdown,
    standard::{Http, SetupError, Standard},
};
use crate::{
    engine::CompilerProcess, host::Host, plugin::wasi_http::HttpServer, spec::BlockedNetwork,
};

pub use machine::Memory;

/// The field manager of all that agents apply; one name for all of them, so that a workload that moves leaves nothing behind.
const FIELD_MANAGER: &str = "washlet-agent";
/// Reads and writes of the API server that run at once.
const EFFECTS: usize = 16;
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
    /// How workloads are served.
    pub http: Http,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin_listen: SocketAddr,
    /// Where images and compiled code are kept.
    pub state_dir: PathBuf,
    /// Registries' certificates and mirrors, in containerd's layout.
    pub registry_certs_dir: Option<PathBuf>,
    /// What compiled code may take on disk; none means 4 GiB.
    pub cache_space: Option<Memory>,
    /// What all ephemeral volumes may hold together; none means what their limits say.
    pub volume_space: Option<Memory>,
    /// Directories below which `hostPath` volumes are allowed.
    pub host_path_roots: Vec<PathBuf>,
    /// Whether components may be granted ports of this machine's loopback.
    pub allow_host_loopback: bool,
    /// Where others reach the agent, at most one address of each family; empty means where it listens, if that is one address.
    pub advertise_addresses: Vec<IpAddr>,
    /// A word for where the host is, by which workloads choose.
    pub environment: Option<String>,
    /// Labels of the host, beside those of its node.
    pub host_labels: BTreeMap<String, String>,
    /// Networks that no component may connect to.
    pub block_networks: Vec<BlockedNetwork>,
    /// What workloads may use in all; none means what the agent may use, less what it needs for itself and to compile.
    pub memory: Option<Memory>,
    /// Where components are compiled; none means in this process, which a component can fill.
    pub compiler: Option<CompilerProcess>,
    /// What compiling may use in all; none means half of what is left for it and for workloads, and at most 1 GiB.
    pub compile_memory: Option<Memory>,
}

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The API server cannot be talked to as configured.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The state directory cannot be used.
    #[error("--state-dir {}: {source}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Two addresses are of one family, or one is none that others can reach.
    #[error("--advertise-address {address}: {problem}")]
    AdvertiseAddress {
        /// The address.
        address: IpAddr,
        /// What is wrong with it.
        problem: String,
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
    http: Arc<HttpServer>,
    facts: Facts,
    admin: Admin,
    _state: StateDir,
}

impl Agent {
    /// Opens what the agent needs from the machine. The API server need not answer yet.
    ///
    /// # Errors
    /// [`AgentError`], naming the flag.
    pub async fn bind(config: Config) -> Result<Self, AgentError> {
        let advertised = advertised(&config)?;
        let (client, default_namespace) = client::connect(config.kubeconfig.as_deref()).await?;
        let namespace = config.system_namespace.clone().unwrap_or(default_namespace);
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
        let compile_memory = config
            .compile_memory
            .unwrap_or_else(|| Memory::for_compiling(config.memory));
        let compiler = config
            .compiler
            .map(|c| c.max_memory(compile_memory.bytes()));
        let standard = Standard {
            compiler,
            id: Some(&config.node_name),
            http: config.http,
            state_dir: state.path(),
            registry_certs_dir: config.registry_certs_dir,
            cache_space: config.cache_space.map(Memory::bytes),
            volume_space: config.volume_space.map(Memory::bytes),
            host_path_roots: config.host_path_roots,
            allow_host_loopback: config.allow_host_loopback,
            block_networks: config.block_networks,
        };
        let started = standard.start().await?;
        let http = started.http;
        tracing::info!(node = config.node_name, %http, admin = %admin.addr(), "listening");
        let facts = Facts {
            http,
            addresses: advertised,
            environment: config.environment,
            labels: config.host_labels,
            memory: config
                .memory
                .or_else(|| Memory::of_workloads(compile_memory)),
            interfaces: started
                .host
                .offers()
                .iter()
                .chain(&started.host.calls())
                .map(ToString::to_string)
                .collect(),
            images: started.images,
        };
        Ok(Self {
            instance: state.instance(),
            node: config.node_name.into(),
            namespace,
            namespaces: config.namespaces,
            client,
            host: started.host,
            http: started.server,
            facts,
            admin,
            _state: state,
        })
    }

    /// Where workloads are served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.facts.http
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Runs the node's workloads until the shutdown begins. Then another agent of the node that is prepared takes them over;
    /// or else they finish, which their status says, and the Lease is given back.
    pub async fn run(self, shutdown: Shutdown) {
        let metrics = Metrics::default();
        let health = Health::new("the API server has not listed this node's workloads yet");
        let (standing_tx, standing) = channel::channel(Standing::Unknown);
        let (load_tx, load) = channel::channel(Load::default());
        let (release_tx, release) = channel::channel(false);
        let (prepared_tx, prepared) = channel::channel(false);
        let (hand_over, wanted) = channel::channel(false);
        let (said, announced) = channel::channel(false);
        let (phase_tx, phase) = channel::channel(Phase::Running);
        let (reported_tx, reported) = channel::channel(Reported::NOTHING);
        let leave = Leave {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            instance: self.instance.clone(),
            facts: self.facts.clone(),
            host: self.host.clone(),
            http: self.http.clone(),
            standing: standing.clone(),
            phase: phase_tx,
            reported,
            hand_over,
        };
        let keeper = Keeper {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            instance: self.instance.clone(),
            facts: self.facts,
            metrics: metrics.clone(),
        };
        let handover = Handover::new(prepared, wanted, said);
        let keeper = keeper.run(standing_tx, standing.clone(), release, load, handover);
        let keeper = tokio::spawn(keeper);
        let admin = tokio::spawn(
            self.admin
                .serve(health.clone(), metrics.registry(&self.http)),
        );

        let changes = watch::spawn(&self.client, &self.node, &self.namespaces, metrics.clone());
        let (effects, done) = Effects::new(self.client.clone(), EFFECTS);
        let events = Events::spawn(
            self.client.clone(),
            self.node.to_string(),
            metrics.events_dropped.clone(),
        );
        let notices = notices::tell(self.host.notices(), standing.clone(), events.clone());
        let notices = tokio::spawn(notices);
        let control = Control {
            events,
            node: self.node,
            host: self.host,
            effects,
            metrics,
            health,
            standing,
            load: load_tx,
            prepared: prepared_tx,
            announced,
            reported: reported_tx,
        };
        control.run(changes, done, phase, leave.run(shutdown)).await;

        // The keeper ends by itself when it has released the Lease, or was too slow to.
        let _ = release_tx.send(true);
        let _ = tokio::time::timeout(RELEASE_LIMIT, keeper).await;
        admin.abort();
        notices.abort();
        tracing::info!("drained");
    }
}

/// The addresses at which others reach the agent.
fn advertised(config: &Config) -> Result<Vec<IpAddr>, AgentError> {
    let refuse =
        |address: IpAddr, problem: String| Err(AgentError::AdvertiseAddress { address, problem });
    let given = &config.advertise_addresses;
    for (index, address) in given.iter().enumerate() {
        if address.is_unspecified() || address.is_multicast() {
            let text = "nobody can reach it; name the address of this node or pod";
            return refuse(*address, text.to_owned());
        }
        let mut earlier = given.iter().take(index);
        if let Some(other) = earlier.find(|other| other.is_ipv4() == address.is_ipv4()) {
            let text = format!("is of the same family as {other}; give at most one of each");
            return refuse(*address, text);
        }
    }
    let listen = config.http.listen.ip();
    if given.is_empty() && !listen.is_unspecified() {
        return Ok(vec![listen]);
    }
    // A pod of a dual-stack cluster has addresses of both families, also where only one is listened at. `[::]` is both.
    let served = |address: &&IpAddr| match listen {
        IpAddr::V4(_) => address.is_ipv4(),
        IpAddr::V6(listen) => listen.is_unspecified() || address.is_ipv6(),
    };
    Ok(given.iter().filter(served).copied().collect())
}

#[cfg(test)]
mod tests;
