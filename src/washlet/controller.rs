//! The controller: gives workloads without a host one, keeps their replicas, and leads Services to them.
//!
//! One of several controllers leads, by a Lease; the others stand by. The leader decides by pure functions of what it has seen
//! (`schedule`, `replica_set`, `deployment`, `traffic`, `part`), writes through one place, and remembers nothing that it could
//! not learn again from the API server, so that the next leader goes on where it stopped.

mod control;
mod decide;
mod deployment;
mod effects;
mod hosts;
mod liveness;
mod metrics;
#[cfg(test)]
mod model;
mod owned;
mod part;
mod placement;
mod react;
mod replica_set;
mod replicas;
mod routes;
mod schedule;
mod task;
mod template;
mod traffic;
mod watch;
mod world;
mod write;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use tokio::sync::watch as channel;

use self::{control::Control, metrics::Metrics};
use super::{
    admin::{Admin, Health},
    client::{self, ClientError},
    events::Events,
    lease::{LeaseKeeper, Meters, Standing, Timing},
    shutdown::Shutdown,
};

/// The Lease of the leader.
const LEASE: &str = "washlet-controller";
/// As Kubernetes' own controllers have it: a dead leader is replaced within seconds.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew: Duration::from_secs(5),
    look: Duration::from_secs(2),
    timeout: Duration::from_secs(4),
};
/// Longest time for the Lease to be released.
const RELEASE_LIMIT: Duration = Duration::from_secs(6);

/// What the controller is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kubeconfig; none means the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces whose workloads it looks after; empty means all. Nodes are read where that is allowed.
    pub namespaces: Vec<String>,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin_listen: SocketAddr,
    /// Where its Lease is, and the Hosts and Leases of the agents; none means the kubeconfig's namespace.
    pub lease_namespace: Option<String>,
}

/// The controller cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The API server cannot be talked to as configured.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The admin listener cannot be bound.
    #[error("--admin-listen {addr}: {source}; choose another port, or stop who has it")]
    AdminListen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// What the controller looks after.
#[derive(Debug, Clone)]
struct Scope {
    namespaces: Vec<String>,
    system_namespace: String,
}

/// A controller that has all it needs from the machine.
pub struct Controller {
    client: Client,
    scope: Arc<Scope>,
    admin: Admin,
}

impl Controller {
    /// Opens what the controller needs from the machine. The API server need not answer yet.
    ///
    /// # Errors
    /// [`ControllerError`], naming the flag.
    pub async fn bind(config: Config) -> Result<Self, ControllerError> {
        let (client, default_namespace) = client::connect(config.kubeconfig.as_deref()).await?;
        let admin = Admin::bind(config.admin_listen).await.map_err(|source| {
            ControllerError::AdminListen {
                addr: config.admin_listen,
                source,
            }
        })?;
        let scope = Scope {
            namespaces: config.namespaces,
            system_namespace: config.lease_namespace.unwrap_or(default_namespace),
        };
        tracing::info!(admin = %admin.addr(), "listening");
        Ok(Self {
            client,
            scope: Arc::new(scope),
            admin,
        })
    }

    /// Leads whenever it can, until the shutdown begins; then gives the Lease back.
    pub async fn run(self, shutdown: Shutdown) {
        let (metrics, health) = (Metrics::new(), Health::new("it is not known yet who leads"));
        let admin = tokio::spawn(self.admin.serve(health.clone(), metrics.registry()));
        let (standing_tx, standing) = channel::channel(Standing::Unknown);
        let (release_tx, release) = channel::channel(false);
        let meters = Meters {
            held: metrics.leading.clone(),
            renewals_failed: metrics.renewals_failed.clone(),
        };
        let at = (self.scope.system_namespace.as_str(), LEASE);
        let keeper = LeaseKeeper::new(self.client.clone(), at, identity(), TIMING, meters);
        let keeper = tokio::spawn(keeper.run(standing_tx, release));
        let control = Control {
            events: Events::spawn(
                self.client.clone(),
                LEASE.to_owned(),
                metrics.events_dropped.clone(),
            ),
            client: self.client,
            scope: self.scope,
            metrics,
            health,
        };
        tokio::select! {
            () = control.run(standing) => {}
            () = shutdown.begun() => {}
        }
        // Writes that are under way may end; the next leader learns of them.
        let _ = release_tx.send(true);
        let _ = tokio::time::timeout(RELEASE_LIMIT, keeper).await;
        admin.abort();
    }
}

/// A name that no other controller has, nor an earlier one of this process: who starts anew leads anew.
fn identity() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let now = jiff::Timestamp::now().as_nanosecond();
    format!("{}_{:x}_{now:x}", machine.trim(), std::process::id())
}
