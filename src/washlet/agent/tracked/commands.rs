//! Whether a workload's services and jobs may be run by this agent. Those that have ended for good are not run again, and which
//! they are is written in its status, by whoever ran them.

use tokio::time::Instant;

use super::Tracked;
use crate::host::observed::{Observed, Run, RunState};

/// Counts how often this agent has come to hold the Lease.
pub(in crate::washlet::agent) type Term = u64;

impl Tracked {
    /// Whether it has a service or jobs, as far as is known: only what was linked is known to have no job.
    pub fn may_run_commands(&self) -> bool {
        let runs = |o: &Observed| o.components.iter().any(|c| c.run.is_some());
        self.object.spec.service.is_some()
            || !self.is_ready()
            || self.observed.as_ref().is_some_and(runs)
    }

    /// Whether a service or a job of it runs, or waits to run again.
    pub fn runs_commands(&self) -> bool {
        let components = self.observed.iter().flat_map(|o| &o.components);
        components.filter_map(|c| c.run.as_ref()).any(Run::is_alive)
    }

    /// Whether services and jobs may be run in this term: only on a state of the object that was read in it. An older one may
    /// not say yet what the agent before has run to its end, since a watch may be late.
    pub fn may_run_in(&self, term: Term) -> bool {
        self.read == Some(term)
    }

    /// Whether a service or a job waits for nothing but the object to be read in this term. Says so once for each term.
    pub fn ask_in(&mut self, term: Term, now: Instant) -> bool {
        let asks = !self.may_run_in(term) && self.asked != Some(term) && self.holds_commands();
        if asks {
            self.asked = Some(term);
            self.patient_since = now;
        }
        asks
    }

    /// The object was read for this term, or could not be.
    pub fn was_read(&mut self, term: Term, found: bool) {
        if found {
            self.read = Some(term);
        } else if self.asked == Some(term) {
            self.asked = None;
        }
    }

    /// Whether a service or a job could run, and does not.
    pub(super) fn holds_commands(&self) -> bool {
        let components = self.observed.iter().flat_map(|o| &o.components);
        let mut runs = components.filter_map(|c| c.run.as_ref());
        runs.any(|run| run.state == RunState::Held)
    }
}
