//! The instances of one component: made for a request, and kept for further ones where the workload asks for that.
//!
//! An instance belongs to one request at a time; those that serve several at once are [`shared`](super::shared). Nothing is
//! shared between threads but the list of idle instances, which is a stack: the instance that was used last has its memory in
//! the processor's cache.

use std::{
    mem,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{self, Instant};
use wasmtime::Store;
use wasmtime_wasi_http::{p2::bindings as p2, p3::bindings as p3};

use super::{counters::HttpSnapshot, handler::Export, serve::lock};
use crate::{
    engine::{Full, Place, Room},
    plugin::{StoreState, StoreTemplate},
    spec,
};

mod tend;

pub(super) use tend::tend;

/// Longest wait for an instance when all are in use. Clients and proxies give up after some more.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// Requests that may wait for an instance, for each instance that there may be.
const WAITING: u32 = 4;

/// An instance, and its place in the rooms of workload and engine.
pub(super) struct Instance {
    pub store: Store<StoreState>,
    /// None until the first request: making it is part of that, and takes its time.
    proxy: Option<Proxy>,
    invocations: u32,
    /// Its place in the pool, once it has one.
    pooled: Option<Place>,
    idle_since: Option<Instant>,
    // After the store: what is freed can be used.
    _own: Place,
    _engine: Place,
}

/// All instances that there may be are in use.
#[derive(Debug, thiserror::Error)]
#[error("all instances that there may be are in use")]
pub(super) struct NoRoom;

/// An instance's handler.
pub(super) enum Proxy {
    P2(p2::Proxy),
    P3(p3::Service),
}

/// Instances that have no request.
#[derive(Default)]
struct Idle {
    /// The one that was used last is the last.
    kept: Vec<Instance>,
    /// None is kept any more.
    closed: bool,
}

/// All instances of one component of one generation.
pub(super) struct Instances {
    template: Arc<StoreTemplate>,
    pub export: Export,
    room: Arc<Room>,
    reuse: Option<spec::Reuse>,
    /// Longest wait for one.
    wait: Duration,
    idle: Mutex<Idle>,
    /// Instances of the pool, idle or not.
    pool: Arc<Room>,
}

impl Instances {
    /// At most `most` instances, by default a quarter of what the engine allows, so that no workload can take all. None is
    /// made yet. Requests wait for one as long as `wait`.
    pub fn new(
        template: Arc<StoreTemplate>,
        export: Export,
        reuse: Option<spec::Reuse>,
        most: Option<NonZeroU32>,
        wait: Duration,
    ) -> Self {
        let engine = template.room().limit();
        let kept = reuse.map_or(0, |reuse| reuse.pool_size.get());
        let most = most.map_or_else(|| (engine / 4).max(kept).max(1), NonZeroU32::get);
        Self {
            template,
            export,
            room: Arc::new(Room::new(most)),
            reuse,
            wait,
            idle: Mutex::default(),
            pool: Arc::new(Room::new(kept)),
        }
    }

    /// An instance for a request: an idle one, or a new one. None if all that there may be are in use, and go on to be for the
    /// time that a request may wait, or too many wait already.
    pub async fn take(&self) -> Option<Instance> {
        match self.try_take() {
            Ok(instance) => Some(instance),
            Err(_) => self.wait_for(|| self.try_take()).await,
        }
    }

    /// Waits until an attempt to find an instance succeeds. None if none does for the time that a request may wait, or too many
    /// wait already.
    pub async fn wait_for<T>(&self, mut attempt: impl FnMut() -> Result<T, Full>) -> Option<T> {
        let waiting = self.room.limit().saturating_mul(WAITING);
        let engine = self.template.room();
        // A request is worth more than an instance that another workload keeps for one that might come.
        let attempt = || match attempt() {
            Err(Full::Engine) if engine.make_room() => attempt(),
            tried => tried,
        };
        let wait = self.room.wait_for(engine, waiting, attempt);
        time::timeout(self.wait, wait).await.ok().flatten()
    }

    /// Tells one of the requests that wait to look again: one of a shared instance has ended, which `is_idle` now or not.
    pub fn slot_freed(&self, is_idle: bool) {
        self.room.wake_one();
        if is_idle {
            self.template.room().offer();
        }
    }

    /// How many there are, and how many requests wait for one.
    pub fn load(&self) -> HttpSnapshot {
        HttpSnapshot {
            waiting: self.room.waiting().into(),
            instances: self.room.used().into(),
            idle_instances: lock(&self.idle).kept.len() as u64,
            ..HttpSnapshot::default()
        }
    }

    /// An instance, without waiting.
    ///
    /// # Errors
    /// The room that is full.
    pub fn try_take(&self) -> Result<Instance, Full> {
        self.take_idle().map_or_else(|| self.make(), Ok)
    }

    /// An instance that the pool has room for, without waiting.
    pub fn try_take_for_pool(&self) -> Option<Instance> {
        if let Some(idle) = self.take_idle() {
            return Some(idle);
        }
        // Before it is made: one that is dropped again would wake who waits, and who waits may be just this one.
        let pooled = self.pool.try_enter()?;
        let made = self.make().ok()?;
        Some(Instance {
            pooled: Some(pooled),
            ..made
        })
    }

    fn take_idle(&self) -> Option<Instance> {
        self.reuse?;
        let mut instance = lock(&self.idle).kept.pop()?;
        StoreState::renew(&mut instance.store);
        Some(instance)
    }

    /// A new instance, in a store that has not run anything yet.
    fn make(&self) -> Result<Instance, Full> {
        let (own, engine) = Room::enter_both(&self.room, self.template.room())?;
        Ok(Instance {
            store: self.template.store(),
            proxy: None,
            invocations: 0,
            pooled: None,
            idle_since: None,
            _own: own,
            _engine: engine,
        })
    }

    /// Takes an instance back whose request has ended well. It is kept, if the pool has room for it and it may serve another.
    pub fn give_back(&self, mut instance: Instance) {
        let Some(reuse) = self.reuse else { return };
        instance.invocations = instance.invocations.saturating_add(1);
        let spent = |most: NonZeroU32| instance.invocations >= most.get();
        if reuse.max_invocations.is_some_and(spent) || !self.adopt(&mut instance) {
            return;
        }
        self.keep(instance, reuse);
    }

    /// Keeps an instance of the pool for whoever asks next.
    fn keep(&self, mut instance: Instance, reuse: spec::Reuse) {
        instance.idle_since = reuse.idle.map(|_| Instant::now());
        let mut idle = lock(&self.idle);
        if idle.closed {
            return;
        }
        idle.kept.push(instance);
        drop(idle);
        self.room.wake_one();
        self.template.room().offer();
    }

    /// Keeps none any more: the memory of those that nobody uses is for the generation that takes over.
    pub fn close(&self) {
        let given_up = {
            let mut idle = lock(&self.idle);
            idle.closed = true;
            mem::take(&mut idle.kept)
        };
        drop(given_up);
    }

    fn is_closed(&self) -> bool {
        lock(&self.idle).closed
    }

    /// Counts an instance as one of the pool, if there is room in that.
    fn adopt(&self, instance: &mut Instance) -> bool {
        if instance.pooled.is_none() {
            instance.pooled = self.pool.try_enter();
        }
        instance.pooled.is_some()
    }
}

impl Instance {
    /// The instance's store and handler. The first time the instance is made, which runs the component's start functions.
    ///
    /// # Errors
    /// Wasmtime's: the component traps, or no slot is free.
    pub async fn started(
        &mut self,
        export: &Export,
    ) -> wasmtime::Result<(&mut Store<StoreState>, &Proxy)> {
        let proxy = match &mut self.proxy {
            Some(proxy) => proxy,
            none => {
                let made = match export {
                    Export::P2(pre) => Proxy::P2(pre.instantiate_async(&mut self.store).await?),
                    Export::P3(pre) => Proxy::P3(pre.instantiate_async(&mut self.store).await?),
                };
                // The first call has as much as each other one.
                StoreState::refuel(&mut self.store);
                none.insert(made)
            }
        };
        Ok((&mut self.store, proxy))
    }
}
