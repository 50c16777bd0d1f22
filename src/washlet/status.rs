//! What the agent reports about a workload: a pure function of the object, of what came of converting it, of what the host
//! says, and of the time.
//!
//! Only the agent's own part is made here: no condition of another owner, and `hostId` only where the spec pins the workload
//! (otherwise it is the controller's). Nothing is read from the former status but the times at which conditions flipped, and the
//! ends of commands that are not to be run again.

mod apply;
mod component;
mod condition;
mod position;
mod time;

use std::time::SystemTime;

use crate::{
    fault::{Fault, Stage},
    host::observed::{Observed, Progress},
    washlet::api,
};

pub use apply::{apply_body, differs};

use position::Position;

/// All that the status is made of.
#[derive(Debug, Clone, Copy)]
pub struct StatusInput<'a> {
    /// The object as it was last read, with its former status.
    pub workload: &'a api::Workload,
    /// The host's id.
    pub node: &'a str,
    /// Why the object's generation could not be stated to the host. What the host says is about an older state then.
    pub fault: Option<&'a Fault>,
    /// What the host says; none before it was told anything.
    pub observed: Option<&'a Observed>,
    /// The agent is going away.
    pub draining: bool,
    /// The time.
    pub now: SystemTime,
}

/// The agent's part of a workload's status.
///
/// # Guarantees
/// Conditions come in the order `Accepted`, `ConfigResolved`, `ImagesPulled`, `Linked`, `Ready`, and then, only while true,
/// `Reconciling` or `Stalled`. A condition is `Unknown` while an earlier one is not `True`, save `Ready`, which then is
/// `False` for the same reason. While an older generation answers because a newer one does not yet, `Ready` is `True` with the
/// older generation's number. `lastTransitionTime` moves only when a status flips, and never back.
#[must_use]
pub fn status(input: &StatusInput<'_>) -> api::WorkloadStatus {
    let position = Position::of(input);
    let pinned = input
        .workload
        .spec
        .host_id
        .as_deref()
        .is_some_and(|id| !id.is_empty());
    let timings = input
        .observed
        .filter(|o| o.generation == position.generation)
        .map(|o| time::timings(&o.timings));
    api::WorkloadStatus {
        observed_generation: Some(position.generation),
        conditions: condition::conditions(input, &position),
        host_id: pinned.then(|| input.node.to_owned()),
        workload_id: input.workload.metadata.uid.clone(),
        components: component::components(input, &position),
        timings,
        ..api::WorkloadStatus::default()
    }
}

impl StatusInput<'_> {
    /// The generation that answers, if any does.
    fn serving(&self) -> Option<i64> {
        let observed = self.observed.filter(|_| !self.draining)?;
        let serving = observed.serving.as_ref()?.generation;
        match observed.progress {
            Progress::Draining | Progress::Stopped => None,
            // What answered has lost what it needs to answer. At any earlier stage it is a newer state that failed.
            Progress::Failed { ref fault, .. }
                if serving == observed.generation && fault.stage == Stage::Start =>
            {
                None
            }
            _ => Some(serving),
        }
    }
}

#[cfg(test)]
mod tests;
