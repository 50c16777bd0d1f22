//! Keeps a supervisor running for as long as its workload is wanted, whatever it does.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::FutureExt as _;
use tokio::sync::watch;

use super::{
    super::{
        Shared, Supervised,
        observed::{Observed, Progress},
    },
    Desired, Supervisor,
    look::first_look,
};
use crate::{
    fault::{Fault, Reason, Stage},
    plugin::wasi::Kept,
    spec::{self, WorkloadId},
};

/// Wait before a supervisor that panicked begins again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// Starts a supervisor.
pub(in crate::host) fn spawn(shared: Arc<Shared>, workload: Arc<spec::Workload>) -> Supervised {
    let (observed_tx, observed) = watch::channel(first_look(&workload));
    let (desired, desired_rx) = watch::channel(Some(workload));
    let task = tokio::spawn(guarded(shared, desired_rx, observed_tx));
    Supervised {
        desired,
        observed,
        task,
    }
}

/// Runs a supervisor for as long as the workload is wanted. A panic in it (a bug in the host or a plugin) is this workload's
/// fault alone, and is shown as such.
async fn guarded(
    shared: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    observed: watch::Sender<Observed>,
) {
    let id = observed.borrow().id.clone();
    let mut kept = Kept::new(shared.volumes.clone());
    while let Some(workload) = wanted_or_forgotten(&shared, &id, &desired) {
        observed.send_replace(first_look(&workload));
        let desired = desired.clone();
        let supervisor = Supervisor::new(shared.clone(), workload, desired, &observed, &kept);
        let ended = AssertUnwindSafe(supervisor.run()).catch_unwind().await;
        if ended.is_ok() {
            // If it is wanted again, it is another one.
            kept = Kept::new(shared.volumes.clone());
        }
        observed.send_modify(|o| {
            o.serving = None;
            o.progress = match &ended {
                Ok(()) => Progress::Stopped,
                Err(_) => panicked(),
            };
        });
        // Without a reader there is nobody to tell.
        let _ = shared.changes.send(id.clone());
        if ended.is_err() {
            tokio::time::sleep(AFTER_PANIC).await;
        }
    }
}

/// The workload to run; or, if none is wanted, takes it off the host's list, in one step with looking.
fn wanted_or_forgotten(
    shared: &Shared,
    id: &WorkloadId,
    desired: &watch::Receiver<Desired>,
) -> Desired {
    let mut supervised = shared.lock();
    let wanted = desired.borrow().clone();
    if wanted.is_none() {
        // Dropping the entry aborts this task, which has nothing left to do.
        supervised.remove(id);
    }
    wanted
}

fn panicked() -> Progress {
    let message = "the host panicked on this workload; please report it with the agent's log";
    Progress::Failed {
        fault: Fault::new(Stage::Start, Reason::HostError, message),
        attempts: 1,
        retry_at: Some(SystemTime::now() + AFTER_PANIC),
    }
}
