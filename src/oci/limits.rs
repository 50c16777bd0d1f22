//! How much a node asks of registries at once. Over a limit a pull waits; it never fails for that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Downloads at a time, for the whole node.
const DOWNLOADS: usize = 4;

/// Downloads at a time from one registry, so that a slow one does not hold all places of the node.
const DOWNLOADS_PER_REGISTRY: usize = 2;

/// Pulls that may begin at once when a registry has not been asked for a while.
const BURST: u32 = 10;

/// Time after which another pull may begin: five a second.
const INTERVAL: Duration = Duration::from_millis(200);

/// Registries remembered before idle ones are forgotten. Workloads choose the names, so the number has to be bounded.
const REGISTRIES: usize = 256;

/// The limits of a node.
pub(crate) struct Limits {
    downloads: Arc<Semaphore>,
    registries: Mutex<HashMap<String, Arc<Registry>>>,
}

/// The limits of one registry.
struct Registry {
    downloads: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

/// When the next pull would be due if pulls came evenly spaced.
struct Pace(Instant);

/// A place among the downloads; dropping it makes room for another.
pub(crate) struct Place {
    _registry: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self {
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            registries: Mutex::default(),
        }
    }

    /// Waits until another pull from `registry` may begin.
    pub(crate) async fn admit(&self, registry: &str) {
        let now = Instant::now();
        let registry = self.registry(registry, now);
        let wait = registry
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(now);
        tokio::time::sleep(wait).await;
    }

    /// Waits for a place among the downloads. None when the semaphore is closed, which it never is.
    pub(crate) async fn place(&self, registry: &str) -> Option<Place> {
        let registry = self.registry(registry, Instant::now());
        // The registry's own place first: who waits for a slow registry holds none of the node's.
        let own = Arc::clone(&registry.downloads).acquire_owned().await.ok()?;
        let node = Arc::clone(&self.downloads).acquire_owned().await.ok()?;
        Some(Place {
            _registry: own,
            _node: node,
        })
    }

    fn registry(&self, name: &str, now: Instant) -> Arc<Registry> {
        let mut registries = self
            .registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = registries.get(name) {
            return Arc::clone(registry);
        }
        if registries.len() >= REGISTRIES {
            registries.retain(|_, registry| !registry.idle(now));
        }
        let registry = Arc::new(Registry {
            downloads: Arc::new(Semaphore::new(DOWNLOADS_PER_REGISTRY)),
            pace: Mutex::new(Pace(now)),
        });
        registries.insert(name.to_owned(), Arc::clone(&registry));
        registry
    }
}

impl Registry {
    /// Whether forgetting it would change nothing.
    fn idle(&self, now: Instant) -> bool {
        self.downloads.available_permits() == DOWNLOADS_PER_REGISTRY
            && self.pace.lock().unwrap_or_else(PoisonError::into_inner).0 <= now
    }
}

impl Pace {
    /// Takes a turn; returns how long to wait for it.
    fn take(&mut self, now: Instant) -> Duration {
        let due = self.0.max(now);
        self.0 = due + INTERVAL;
        due.saturating_duration_since(now)
            .saturating_sub(INTERVAL * (BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_five_a_second() {
        let start = Instant::now();
        let mut pace = Pace(start);
        let waits: Vec<_> = (0..13).map(|_| pace.take(start).as_millis()).collect();
        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10..], [200, 400, 600]);
        // After a pause the burst is whole again, and no larger.
        let later = start + Duration::from_secs(60);
        let waits: Vec<_> = (0..11).map(|_| pace.take(later).as_millis()).collect();
        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10], 200);
    }

    #[tokio::test]
    async fn a_slow_registry_leaves_room_for_others() {
        let limits = Arc::new(Limits::new());
        let slow = (limits.place("slow.io").await, limits.place("slow.io").await);
        let third = limits.place("slow.io");
        assert!(
            tokio::time::timeout(Duration::from_millis(20), third)
                .await
                .is_err()
        );
        let others = (limits.place("a.io").await, limits.place("b.io").await);
        assert!(others.0.is_some() && others.1.is_some());
        let fifth = limits.place("c.io");
        assert!(
            tokio::time::timeout(Duration::from_millis(20), fifth)
                .await
                .is_err()
        );
        drop(slow);
        assert!(limits.place("c.io").await.is_some());
    }

    #[tokio::test]
    async fn idle_registries_are_forgotten() {
        let limits = Limits::new();
        let place = limits.place("busy.io").await;
        for n in 0..2 * REGISTRIES {
            drop(limits.place(&format!("r{n}.io")).await);
        }
        let registries = limits.registries.lock().expect("not poisoned");
        assert!(registries.len() <= REGISTRIES && registries.contains_key("busy.io"));
        drop(place);
    }
}
