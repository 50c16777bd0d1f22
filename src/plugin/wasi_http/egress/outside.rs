//! What the calls out of all workloads of a server have in common: names, trust, the operator's limits, and totals.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use rustls::ClientConfig;
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    task,
};

use super::pool::Budget;
use crate::{
    spec::{BlockedNetwork, WorkloadId},
    trust::system_roots,
};

/// Connections that a workload may have open, unless the server was told otherwise.
pub(in super::super) const MAX_CONNECTIONS: usize = 128;

/// Names that are looked up at a time, for all workloads and for one: each look-up takes a thread until the system gives up,
/// which can take it half a minute.
const LOOKUPS: usize = 64;
pub(super) const LOOKUPS_OF_WORKLOAD: usize = 8;

/// What all workloads share.
#[derive(Clone)]
pub(in super::super) struct Outside {
    /// The operator's networks, which no rule opens.
    pub networks: Arc<[BlockedNetwork]>,
    /// Connections that one workload may have open.
    pub max_connections: usize,
    pub pings: Pings,
    pub totals: Arc<Totals>,
    resolver: Arc<dyn Resolve>,
    lookups: Arc<Semaphore>,
    budgets: Arc<Mutex<HashMap<WorkloadId, Weak<Budget>>>>,
    tls: Arc<OnceCell<ClientConfig>>,
}

/// How a server of HTTP/2 is found to be gone that did not say so. Every further call would go to it for as long as the system
/// sends again, a quarter of an hour. A connection without calls is not asked: nobody waits there, and it is closed soon.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Pings {
    /// A server that has calls to answer and says nothing for so long is asked whether it is there.
    pub silence: Duration,
    /// As `silence`, for gRPC, which knows streams that are silent for long: its servers hang up on those who ask more often than
    /// every five minutes.
    pub silence_grpc: Duration,
    /// What it may take to answer.
    pub answer: Duration,
}

impl Default for Pings {
    /// Most guests have 60 seconds for a request, so one that meets the gap learns of it, and the next one finds a new connection.
    /// More often would be rude to a server that takes its time, and some hang up on those who ask every few seconds.
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            silence_grpc: Duration::from_secs(330),
            answer: Duration::from_secs(10),
        }
    }
}

/// Counts of all workloads of a server.
#[derive(Default)]
pub(in super::super) struct Totals {
    pub denied: AtomicU64,
    pub prohibited: AtomicU64,
    pub limited: AtomicU64,
    pub opened: AtomicU64,
    pub closed: AtomicU64,
}

/// Calls out of all workloads of a server at one moment. All but `open` only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressSnapshot {
    /// Calls that no rule of `allowedHosts` allowed.
    pub denied: u64,
    /// Calls to names that led only to blocked addresses.
    pub prohibited: u64,
    /// Calls that found their workload's connections all in use for too long.
    pub limited: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
}

/// Looks up names.
pub(in super::super) trait Resolve: Send + Sync {
    /// The addresses of a host, in the order in which to try them.
    fn resolve(
        &self,
        host: String,
        permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver, `getaddrinfo`: it knows of `/etc/hosts` and the cluster's search domains.
struct System;

impl Resolve for System {
    fn resolve(
        &self,
        host: String,
        permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        // A thread that nobody waits for any more still counts, so it takes the permits along.
        let lookup = task::spawn_blocking(move || {
            let _permits = permits;
            let found = (host.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        });
        Box::pin(async move { lookup.await.map_err(io::Error::other)? })
    }
}

impl Outside {
    pub fn new() -> Self {
        Self {
            networks: Arc::default(),
            max_connections: MAX_CONNECTIONS,
            pings: Pings::default(),
            totals: Arc::default(),
            resolver: Arc::new(System),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            budgets: Arc::default(),
            tls: Arc::default(),
        }
    }

    /// With another resolver.
    #[cfg(test)]
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Trusting these authorities only.
    #[cfg(test)]
    pub fn trust(mut self, roots: rustls::RootCertStore) -> Self {
        self.tls = Arc::new(OnceCell::new_with(client_config(roots).ok()));
        self
    }

    /// What a workload may have, which all its generations share.
    pub fn budget(&self, workload: &WorkloadId) -> Arc<Budget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = budgets.get(workload).and_then(Weak::upgrade) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::<Budget>::default();
        budgets.insert(workload.clone(), Arc::downgrade(&budget));
        budget
    }

    /// The addresses of a host, in the order in which to try them.
    pub async fn resolve(
        &self,
        host: &str,
        of_workload: &Arc<Semaphore>,
    ) -> io::Result<Vec<IpAddr>> {
        let permits = (
            permit(of_workload).await?,
            // Second, so that no workload waits in the others' queue with more than its share.
            permit(&self.lookups).await?,
        );
        self.resolver.resolve(host.to_owned(), permits).await
    }

    /// The configuration of TLS clients; the first call reads the system's certificates, off the thread.
    pub async fn tls(&self) -> io::Result<&ClientConfig> {
        let load = || async {
            task::spawn_blocking(|| client_config(system_roots()))
                .await
                .map_err(io::Error::other)?
                .map_err(io::Error::other)
        };
        self.tls.get_or_try_init(load).await
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("networks", &self.networks)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl Totals {
    pub fn snapshot(&self) -> EgressSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order, so that one that opens meanwhile does not make it negative.
        let closed = get(&self.closed);
        let connections = get(&self.opened);
        EgressSnapshot {
            denied: get(&self.denied),
            prohibited: get(&self.prohibited),
            limited: get(&self.limited),
            connections,
            open: connections.saturating_sub(closed),
        }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> io::Result<OwnedSemaphorePermit> {
    let permit = semaphore.clone().acquire_owned().await;
    permit.map_err(io::Error::other)
}

fn client_config(roots: rustls::RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
