//! What the host says about a workload: plain data, published whenever it changes.

use std::{sync::Arc, time::SystemTime};

use crate::{
    fault::{Fault, Stage},
    spec::{Digest, WorkloadId},
};

pub use crate::plugin::{Run, RunState};

/// The state of one workload on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Whose state this is.
    pub id: WorkloadId,
    /// The generation that the host acts on: the newest that it was given.
    pub generation: i64,
    /// Its [`stamp`](crate::spec::Workload::stamp): the same generation may be started anew.
    pub stamp: u64,
    /// How far that generation is.
    pub progress: Progress,
    /// The generation that answers, if any; it may be an older one while the newest is prepared or has failed.
    pub serving: Option<Serving>,
    /// Nothing of the newest generation runs or will run by itself: its jobs have ended for good, well or not, and nothing else
    /// of it could be called.
    pub over: bool,
    /// One entry a component of the newest generation, in its order.
    pub components: Vec<ComponentState>,
    /// When each stage of the newest generation was completed.
    pub timings: Timings,
}

/// How far a generation is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The stage in hand.
    Working(Stage),
    /// It answers.
    Running,
    /// It has done all that it is there for: its jobs have ended well.
    Completed,
    /// The stage that failed, and why. If the fault's class allows it, another try follows by itself.
    Failed {
        /// What failed.
        fault: Fault,
        /// How often in a row.
        attempts: u32,
        /// When the next try is due, if one is planned.
        retry_at: Option<SystemTime>,
    },
    /// It no longer takes requests; those in flight are being finished.
    Draining,
    /// It is gone.
    Stopped,
}

/// The generation that answers requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    /// Which one.
    pub generation: i64,
    /// Since when.
    pub since: SystemTime,
}

/// One component of the newest generation.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentState {
    /// Its name.
    pub name: Arc<str>,
    /// Its source as the user wrote it.
    pub image: String,
    /// Digest of its bytes, once fetched.
    pub digest: Option<Digest>,
    /// How it is doing, if it runs by itself (a service or a job) and its generation serves.
    pub run: Option<Run>,
}

/// When stages were completed; none for those that were not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// The host was given the generation.
    pub assigned: Option<SystemTime>,
    /// All bytes were here.
    pub fetched: Option<SystemTime>,
    /// All components were compiled, or loaded from the cache.
    pub compiled: Option<SystemTime>,
    /// All imports were resolved.
    pub linked: Option<SystemTime>,
    /// It answered.
    pub started: Option<SystemTime>,
}
