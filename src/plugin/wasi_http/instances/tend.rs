//! The instances of a pool that nobody has asked for: those that are made ahead, and those that are given up.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{
    super::{handler::Handler, serve::lock},
    Instance, Instances,
};
use crate::{plugin::lane::Laned, spec};

/// Time between two looks at a pool.
const TEND: Duration = Duration::from_secs(5);

/// The same for pools that shrink quickly.
const TEND_LEAST: Duration = Duration::from_millis(250);

/// Makes the instances that are kept whatever happens, and gives up others that nobody has needed for a while. Ends when the
/// component is not called any more, whatever it is about then.
pub(in super::super) async fn tend(handler: Weak<Handler>, reuse: spec::Reuse) {
    loop {
        let Some(handler) = handler.upgrade() else {
            return;
        };
        tokio::select! {
            biased;
            () = handler.flight.cut() => return,
            () = fill(&handler, reuse) => {}
        }
        if let Some(idle) = reuse.idle {
            handler.instances.shrink(reuse, Instant::now(), idle);
        }
        drop(handler);
        let wait = reuse.idle.map(|idle| (idle / 4).clamp(TEND_LEAST, TEND));
        time::sleep(wait.unwrap_or(TEND)).await;
    }
}

/// Makes what is missing to the least number of instances.
async fn fill(handler: &Arc<Handler>, reuse: spec::Reuse) {
    let instances = &handler.instances;
    while instances.pool.used() < reuse.min_instances && !instances.is_closed() {
        // A component that fails to start fails with its first request too, which says so.
        let Some(mut instance) = started(handler).await else {
            return;
        };
        if !instances.adopt(&mut instance) {
            return;
        }
        instances.keep(instance, reuse);
    }
}

/// A new instance, which has had a request's time to start, where a request would have had it: start functions are the guest's.
async fn started(handler: &Arc<Handler>) -> Option<Instance> {
    let (sender, mut made) = oneshot::channel();
    let instances = handler.instances.clone();
    let start = move || async move {
        let Ok(mut instance) = instances.make() else {
            return false;
        };
        if instance.started(&instances.export).await.is_ok() {
            let _ = sender.send(instance);
        }
        true
    };
    let task = Laned::single(start, &handler.lane);
    time::timeout(handler.timeout, task).await.ok()?;
    made.try_recv().ok()
}

impl Instances {
    /// Gives up instances that have been idle for `limit`. The longest idle ones are at the bottom.
    fn shrink(&self, reuse: spec::Reuse, now: Instant, limit: Duration) {
        let spare = self.pool.used().saturating_sub(reuse.min_instances);
        let given_up: Vec<Instance> = {
            let mut idle = lock(&self.idle);
            let old = idle
                .kept
                .iter()
                .take(spare as usize)
                .take_while(|i| i.idle_since.is_some_and(|since| now - since >= limit))
                .count();
            idle.kept.drain(..old).collect()
        };
        // Not under the lock: it unmaps memory.
        drop(given_up);
    }

    /// Gives up the instance that has been idle for the longest time, if it need not be kept.
    pub fn give_up_one(&self) -> bool {
        let given_up = {
            let mut idle = lock(&self.idle);
            (!idle.kept.is_empty() && self.has_spare(0)).then(|| idle.kept.remove(0))
        };
        given_up.is_some()
    }

    /// Whether there are more instances in the pool than have to be, without so many that are `leaving` it.
    pub fn has_spare(&self, leaving: usize) -> bool {
        let least = self.reuse.map_or(0, |reuse| reuse.min_instances);
        (self.pool.used() as usize).saturating_sub(leaving) > least as usize
    }
}
