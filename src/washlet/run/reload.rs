//! What runs is what the files said when all of them were right.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    files::{self, Watcher},
    manifest::{self, Loaded},
    report::Report,
};
use crate::{host::Host, spec::WorkloadId};

/// A workload that is gone from a file that is still there is stopped when nothing has changed for this long.
const REST: Duration = Duration::from_secs(1);

/// What the host was told.
pub(super) struct Running {
    host: Arc<Host>,
    paths: Vec<PathBuf>,
    last: Loaded,
    /// When to stop what is held.
    rested: Option<Instant>,
}

/// Why to read the files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Some have changed.
    Files,
    /// Some have, and folders or links on the way to them may be other ones.
    Replaced,
    /// None has, for as long as something was held.
    Rested,
}

impl Running {
    /// Runs what was read first.
    pub fn new(host: Arc<Host>, paths: Vec<PathBuf>, loaded: Loaded) -> Self {
        let mut running = Self {
            host,
            paths,
            last: Loaded::default(),
            rested: None,
        };
        running.state(loaded);
        running
    }

    /// The workloads that should run.
    pub fn ids(&self) -> impl Iterator<Item = &WorkloadId> {
        self.last.workloads.keys()
    }

    /// Ready when the files are to be read again; never without a watcher.
    pub async fn change(&self, watcher: &Option<Watcher>) -> Change {
        let rested = async {
            match self.rested {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            replaced = files::changed(watcher) => if replaced { Change::Replaced } else { Change::Files },
            () = rested => Change::Rested,
        }
    }

    /// Reads the files again. If all is well with them, they are what runs.
    pub fn reload(&mut self, change: Change, watcher: &mut Watcher, report: &mut Report) {
        // Watched before it is read, so that nothing is missed in between.
        if change == Change::Replaced {
            watcher.again();
        }
        self.rested = None;
        let before = self.last.before(watcher.being_written());
        match manifest::load(&self.paths, &before) {
            Ok(mut loaded) => {
                if change != Change::Rested && loaded.hold(&self.last) {
                    self.rested = Some(Instant::now() + REST);
                }
                report.loaded(&loaded);
                watcher.follow(&loaded.files);
                self.state(loaded);
            }
            Err(rejected) => {
                report.broken(&rejected.error);
                watcher.follow(&rejected.files);
            }
        }
    }

    /// Runs these workloads, and no others.
    fn state(&mut self, loaded: Loaded) {
        for gone in self.ids().filter(|id| !loaded.workloads.contains_key(*id)) {
            self.host.remove(gone);
        }
        for workload in loaded.workloads.values() {
            self.host.set(workload.clone());
        }
        self.last = loaded;
    }
}
