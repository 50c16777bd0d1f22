//! How many connections a workload may have, over all its generations: during a rollout the old and the new one share the number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering};

use tokio::sync::{Notify, Semaphore, futures::Notified};

use super::Pool;
use crate::plugin::wasi_http::egress::outside::LOOKUPS_OF_WORKLOAD;

/// A workload's share.
pub(in super::super::super) struct Budget {
    pub lookups: Arc<Semaphore>,
    taken: Mutex<Taken>,
    /// Something came free: a place, or an idle connection.
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    open: usize,
    /// Of the generations.
    pools: Vec<Weak<Pool>>,
}

/// A place for one connection.
pub(in super::super) struct Place(Arc<Pool>);

impl Default for Budget {
    fn default() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(LOOKUPS_OF_WORKLOAD)),
            taken: Mutex::default(),
            freed: Notify::new(),
        }
    }
}

impl Budget {
    /// Lets a pool take part.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut taken = self.lock();
        taken.pools.retain(|pool| pool.strong_count() > 0);
        taken.pools.push(Arc::downgrade(pool));
    }

    /// Connections that are open or being opened.
    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.lock().open
    }

    /// Waits for the next thing that comes free.
    pub(super) fn next_freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Wakes one that waits.
    pub(super) fn freed(&self) {
        self.freed.notify_one();
    }

    /// Wakes all that wait.
    pub(super) fn all_freed(&self) {
        self.freed.notify_waiters();
    }

    /// Closes an idle connection of another generation. Nothing may be locked.
    pub(super) fn evict_elsewhere(&self, than: &Pool) {
        let pools = self.lock().pools.clone();
        let mut others = pools.iter().filter_map(Weak::upgrade);
        others.any(|pool| !std::ptr::eq(&*pool, than) && pool.evict());
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is locked, so what it protects is whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A place, if there is one.
    pub(super) fn take(pool: &Arc<Pool>) -> Option<Self> {
        let mut taken = pool.budget.lock();
        if taken.open >= pool.outside.max_connections {
            return None;
        }
        taken.open += 1;
        drop(taken);
        let totals = &pool.outside.totals;
        totals.opened.fetch_add(1, Ordering::Relaxed);
        Some(Self(pool.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Pool {
            budget, outside, ..
        } = &*self.0;
        budget.lock().open -= 1;
        outside.totals.closed.fetch_add(1, Ordering::Relaxed);
        budget.freed();
    }
}
