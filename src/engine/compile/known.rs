//! What is in memory, on its way there, or known to take too much.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, Shared};
use tokio::{sync::Notify, time::timeout};

use super::{CompileError, CompiledParts, Key, Outcome};
use crate::engine::Compiled;

/// How long it is known that something takes too much: it cannot be told from a machine that had too little at the time.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// Most components that are known to take too much.
const MAX_REFUSED: usize = 1000;

/// How long a compile goes on for which nobody waits: who changed their mind about something else asks for it again at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is known, shared by all compiles.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    live: HashMap<Key, Weak<CompiledParts>>,
    flights: HashMap<Key, Flight>,
    /// What took too much, since when, so that nobody tries it again soon.
    refused: HashMap<Key, (CompileError, Instant)>,
}

/// A compile that has begun.
struct Flight {
    outcome: Shared<BoxFuture<'static, Outcome>>,
    waiting: Arc<Waiting>,
}

/// Who waits for a compile.
#[derive(Default)]
pub(super) struct Waiting {
    /// Changed from zero only while [`Known`] is locked.
    count: AtomicUsize,
    /// The last one has gone.
    gone: Notify,
}

/// One who waits, until it is dropped.
struct Waits(Arc<Waiting>);

impl Known {
    /// What is asked for, which `start` begins if it neither is there nor has begun.
    pub async fn get(
        &self,
        key: &Key,
        start: impl FnOnce(Arc<Waiting>) -> Shared<BoxFuture<'static, Outcome>>,
    ) -> Outcome {
        let (outcome, _waits) = {
            let mut known = self.lock();
            if let Some(parts) = known.live.get(key).and_then(Weak::upgrade) {
                return Ok(Compiled(parts));
            }
            if let Some((error, since)) = known.refused.get(key)
                && since.elapsed() < REFUSED_FOR
            {
                return Err(error.clone());
            }
            let flight = known.flights.entry(key.clone()).or_insert_with(|| {
                let waiting = Arc::<Waiting>::default();
                Flight {
                    outcome: start(waiting.clone()),
                    waiting,
                }
            });
            (flight.outcome.clone(), Waits::new(&flight.waiting))
        };
        outcome.await
    }

    /// A compile has ended.
    pub fn end(&self, key: Key, outcome: &Outcome) {
        let mut known = self.lock();
        known.flights.remove(&key);
        known.live.retain(|_, parts| parts.strong_count() > 0);
        match outcome {
            Ok(compiled) => {
                known.live.insert(key, Arc::downgrade(&compiled.0));
            }
            Err(
                error @ (CompileError::TooMuchMemory { .. } | CompileError::TooMuchTime { .. }),
            ) => {
                if known.refused.len() >= MAX_REFUSED {
                    known.refused.clear();
                }
                known.refused.insert(key, (error.clone(), Instant::now()));
            }
            Err(_) => {}
        }
    }

    /// Ready when nobody has waited for a compile for some time; from then on it is not known, and asking begins anew.
    pub async fn abandoned(&self, key: &Key, waiting: &Waiting) {
        loop {
            waiting.gone.notified().await;
            // Who came meanwhile and has gone again is waited for as long.
            while timeout(PATIENCE, waiting.gone.notified()).await.is_ok() {}
            let mut known = self.lock();
            if waiting.count.load(Ordering::Relaxed) == 0 {
                known.flights.remove(key);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the maps are whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits {
    fn new(waiting: &Arc<Waiting>) -> Self {
        waiting.count.fetch_add(1, Ordering::Relaxed);
        Self(waiting.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.gone.notify_one();
        }
    }
}
