//! The host: keeps workloads as they should be, one supervisor each, over the plugins that it was built with.
//!
//! The host is told what should be ([`Host::set`], [`Host::remove`]) and says what is ([`Host::observe`],
//! [`Host::changes`]); how it gets from one to the other is its own affair. [`HostApi`] is a thin layer of start and stop
//! over that, for programs that embed a few components.

mod api;
mod builder;
mod compose;
mod grants;
mod link;
pub mod observed;
mod prepare;
mod step;
mod supervisor;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::{broadcast, watch};

use crate::{
    engine::Engine,
    plugin::{HostPlugin, Notice, wasi::VolumeStore},
    source::Fetcher,
    spec::{self, WorkloadId},
    wit::InterfaceId,
};
use observed::Observed;

pub use api::{HostApi, HostApiError};
pub use builder::{BuildError, HostBuilder, StartError, UnstartedHost};

/// How many changes may wait for a slow reader before it is told to look at everything again.
const CHANGES: usize = 4096;

/// A running host. Dropping it cuts whatever still runs; [`Host::stop`] lets requests finish first.
pub struct Host {
    id: String,
    started: SystemTime,
    next_id: AtomicU64,
    shared: Arc<Shared>,
}

/// What all supervisors use.
struct Shared {
    /// Tells hosts of one process apart.
    number: u64,
    /// The workloads. A supervisor takes itself out when it ends.
    supervised: Mutex<HashMap<WorkloadId, Supervised>>,
    engine: Engine,
    fetcher: Fetcher,
    plugins: Vec<Arc<dyn HostPlugin>>,
    /// Whether components may be granted ports of the machine's loopback.
    host_loopback: bool,
    blocked_networks: Arc<[spec::BlockedNetwork]>,
    /// All that components may import, for diagnosis.
    offers: Vec<InterfaceId>,
    changes: broadcast::Sender<WorkloadId>,
    /// Where the workloads' volumes are.
    volumes: Arc<VolumeStore>,
    notices: broadcast::Sender<Notice>,
}

/// The host's end of a supervisor.
struct Supervised {
    desired: watch::Sender<Option<Arc<spec::Workload>>>,
    observed: watch::Receiver<Observed>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    /// The host's name: what the builder was given, else the machine's.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the host was started.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Every interface that a component may import.
    #[must_use]
    pub fn offers(&self) -> &[InterfaceId] {
        &self.shared.offers
    }

    /// Every interface that the host calls on components.
    #[must_use]
    pub fn calls(&self) -> Vec<InterfaceId> {
        let plugins = self.shared.plugins.iter();
        plugins.flat_map(|plugin| plugin.world().exports).collect()
    }

    /// States how a workload should be, new or changed. Returns at once; pulls, compiles and starts happen in the workload's
    /// own task. While a changed workload is prepared, and if it fails, the former one goes on answering.
    ///
    /// A workload that is stopping goes on stopping; it is started anew afterwards.
    pub fn set(&self, workload: spec::Workload) {
        let workload = Arc::new(workload);
        let mut supervised = self.shared.lock();
        match supervised.get(&workload.id) {
            Some(known) => {
                known.desired.send_if_modified(|desired| {
                    let news = desired.as_ref() != Some(&workload);
                    if news {
                        *desired = Some(workload.clone());
                    }
                    news
                });
            }
            None => {
                supervised.insert(
                    workload.id.clone(),
                    supervisor::spawn(self.shared.clone(), workload),
                );
            }
        }
    }

    /// Adds a workload, unless its id is taken.
    fn add(&self, workload: spec::Workload) -> Option<watch::Receiver<Observed>> {
        let mut supervised = self.shared.lock();
        match supervised.entry(workload.id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                let new = supervisor::spawn(self.shared.clone(), Arc::new(workload));
                Some(free.insert(new).observed.clone())
            }
        }
    }

    /// An id that no other workload of this process has.
    fn new_id(&self) -> String {
        format!(
            "{}-{}",
            self.id,
            self.next_id.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// States that a workload should not be. It stops taking requests, finishes those in flight within its grace, and is
    /// forgotten. An unknown id is nothing to do.
    pub fn remove(&self, id: &str) {
        if let Some(known) = self.shared.lock().get(id) {
            known
                .desired
                .send_if_modified(|desired| desired.take().is_some());
        }
    }

    /// How a workload is; none if the host does not know it.
    #[must_use]
    pub fn observe(&self, id: &str) -> Option<Observed> {
        self.shared
            .lock()
            .get(id)
            .map(|known| known.observed.borrow().clone())
    }

    /// How all workloads are, in no order.
    #[must_use]
    pub fn list(&self) -> Vec<Observed> {
        self.shared
            .lock()
            .values()
            .map(|known| known.observed.borrow().clone())
            .collect()
    }

    /// How many workloads the host knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().len()
    }

    /// Whether the host knows no workload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of workloads whose [`Observed`] changed, from now on. A reader that falls behind gets
    /// [`RecvError::Lagged`](broadcast::error::RecvError::Lagged) and should look at [`Host::list`].
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<WorkloadId> {
        self.shared.changes.subscribe()
    }

    /// What is noticed about workloads although nothing failed, from now on: a call that was denied, for example. A reader that
    /// falls behind by some hundred loses the oldest.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    /// Follows one workload; none if the host does not know it. The sender ends when the workload has stopped.
    #[must_use]
    pub fn watch(&self, id: &str) -> Option<watch::Receiver<Observed>> {
        self.shared
            .lock()
            .get(id)
            .map(|known| known.observed.clone())
    }

    /// Removes a workload and waits until it has stopped, which takes at most its grace (if it is set anew meanwhile, until
    /// that has stopped too).
    pub async fn remove_and_wait(&self, id: &str) {
        let Some(mut observed) = self.watch(id) else {
            return;
        };
        self.remove(id);
        // An error means that the supervisor has ended, which is what is waited for.
        while observed.changed().await.is_ok() {}
    }

    /// Stops everything: no new requests, those in flight may finish within their workload's grace or `limit`, whichever is
    /// shorter. Returns the number of workloads that were cut.
    pub async fn stop(&self, limit: Duration) -> usize {
        let ids: Vec<WorkloadId> = self.shared.lock().keys().cloned().collect();
        let all = futures::future::join_all(ids.iter().map(|id| self.remove_and_wait(id)));
        // Over the limit, dropping the supervisors cuts what is left.
        let _ = tokio::time::timeout(limit, all).await;
        let left = std::mem::take(&mut *self.shared.lock());
        left.len()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Supervisors hold what they are listed in; without this they would keep each other alive.
        self.shared.lock().clear();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadId, Supervised>> {
        // The map is never left half changed, so a poisoned lock is as good as any.
        self.supervised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
