//! What the agent knows of one workload, and what it has told about it. Pure but for the events that it hands on.

mod commands;
mod telling;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::core::error_boundary::InvalidObject;
use tokio::time::Instant;

pub(super) use self::commands::Term;
use self::telling::Told;
use super::{
    super::{
        api,
        convert::{self, Asked, ReferenceKey, Resolved},
        status::{self, StatusInput},
    },
    effects::{Write, Written},
    references::References,
};
use crate::{
    fault::{Class, Fault, Reason, Stage},
    host::observed::{Observed, Progress},
    spec,
};

/// A start that is under way is not reported before this time has passed: most are over by then, and one write says it all.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// The same for a workload that was Ready, or done, when the agent came up: it is about to be so again.
const COMING_BACK: Duration = Duration::from_secs(10);
/// Least time between two writes for one workload, unless Ready flips.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// Wait after a failed write, by number of failures.
const RETRY: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// When to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WritePlan {
    Nothing,
    Now,
    At(Instant),
}

/// What came of looking at a workload anew.
pub(super) enum Evaluation {
    /// Some of what it names has to be read first.
    Wants,
    /// It should be so.
    Desired(Box<spec::Workload>),
    /// It cannot be, as it is written; what runs goes on running.
    Faulty,
}

/// One workload.
pub(super) struct Tracked {
    object: Arc<api::Workload>,
    /// What is under way is left unreported for a while from then on.
    patient_since: Instant,
    /// What it names must have been read since then: when its generation was first seen.
    since: Instant,
    /// Why it cannot be stated to the host.
    fault: Option<Fault>,
    /// Pull secrets that could not be used, as last told.
    unusable: Vec<String>,
    observed: Option<Observed>,
    draining: bool,
    told: Option<Told>,
    /// For which term of this agent as the holder of the Lease its object was asked for, and read.
    asked: Option<Term>,
    read: Option<Term>,
    // Writing.
    dirty: Option<Instant>,
    in_flight: bool,
    last_write: Option<Instant>,
    failures: usize,
}

impl Tracked {
    pub fn new(object: Arc<api::Workload>, now: Instant) -> Self {
        Self {
            object,
            patient_since: now,
            since: now,
            fault: None,
            unusable: Vec::new(),
            observed: None,
            draining: false,
            told: None,
            asked: None,
            read: None,
            dirty: Some(now),
            in_flight: false,
            last_write: None,
            failures: 0,
        }
    }

    /// A workload whose object this version cannot read. What runs of it goes on running.
    pub fn unreadable(invalid: &InvalidObject, before: Option<Self>, now: Instant) -> Self {
        let mut object = before
            .as_ref()
            .map(|b| (*b.object).clone())
            .unwrap_or_default();
        object.metadata = invalid.metadata.clone();
        let mut tracked = before.unwrap_or_else(|| Self::new(Arc::default(), now));
        tracked.object = Arc::new(object);
        let message = format!(
            "the object cannot be read by this version of washlet: {}",
            invalid.error
        );
        tracked.set_fault(
            Some(Fault::new(Stage::Accept, Reason::UnsupportedSpec, message)),
            now,
        );
        tracked
    }

    /// Whether the object that is known is newer than another state of it. Versions of one object are numbers that grow (KEP
    /// 5504); any that is no number is taken for newer.
    pub fn is_newer_than(&self, object: &api::Workload) -> bool {
        let version = |o: &api::Workload| o.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        version(&self.object)
            .zip(version(object))
            .is_some_and(|(known, told)| known > told)
    }

    /// Takes the newest state of the object. Says whether it asks for something else than before.
    pub fn update(&mut self, object: Arc<api::Workload>, now: Instant) -> bool {
        // Two watches, and the answer to a write, tell of one state.
        let version = &object.metadata.resource_version;
        if version.is_some() && *version == self.object.metadata.resource_version {
            return false;
        }
        let changed = object.metadata.generation != self.object.metadata.generation;
        let news = changed || Asked::of(&object) != Asked::of(&self.object);
        let status = object.status != self.object.status;
        self.object = object;
        if changed {
            (self.since, self.patient_since) = (now, now);
        }
        if news || status {
            self.touch(now);
        }
        news
    }

    /// Makes of it what the host is to do; gives what it names, as far as is known, too.
    pub fn evaluate(
        &mut self,
        known: &References,
        now: Instant,
    ) -> (Evaluation, HashSet<ReferenceKey>) {
        let mut resolved = Resolved::default();
        let wanted = loop {
            let wanted = convert::references(&self.object, &resolved);
            let before = resolved.outcomes.len();
            for key in &wanted {
                if let Some(outcome) = known.get(key, self.since) {
                    resolved.outcomes.insert(key.clone(), outcome.clone());
                }
            }
            // A ServiceAccount that has become known may name more.
            if resolved.outcomes.len() == before {
                break wanted;
            }
        };
        if resolved.outcomes.len() < wanted.len() {
            return (Evaluation::Wants, wanted);
        }
        let evaluation = match convert::convert(&self.object, &resolved) {
            Ok(desired) => {
                self.set_fault(None, now);
                Evaluation::Desired(Box::new(desired))
            }
            Err(error) => {
                self.set_fault(Some(error.fault()), now);
                Evaluation::Faulty
            }
        };
        (evaluation, wanted)
    }

    /// When its generation was first seen.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Takes what the host says.
    pub fn observe(&mut self, observed: Option<Observed>, now: Instant) {
        // A host that has forgotten the workload has stopped it, which the last observation says already.
        let Some(new) = &observed else { return };
        let ends = matches!(new.progress, Progress::Draining | Progress::Stopped);
        // What is done stays done while the agent goes away: there is nothing to drain.
        if self.draining && self.is_completed() && ends {
            return;
        }
        if observed != self.observed {
            self.observed = observed;
            self.touch(now);
        }
    }

    /// The agent is going away, and the workload with it.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        self.touch(now);
    }

    /// What is wrong with it now, if anything is.
    pub fn trouble(&self) -> Option<&Fault> {
        let of_host = match self.observed.as_ref().map(|o| &o.progress) {
            Some(Progress::Failed { fault, .. }) => Some(fault),
            _ => None,
        };
        self.fault.as_ref().or(of_host)
    }

    /// Whether it answers as it should.
    pub fn is_ready(&self) -> bool {
        !self.draining
            && self
                .observed
                .as_ref()
                .is_some_and(|o| o.progress == Progress::Running)
    }

    /// Its namespace and name.
    pub fn place(&self) -> (String, String) {
        let meta = &self.object.metadata;
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        (namespace.unwrap_or_default(), name.unwrap_or_default())
    }

    /// Whether it has done all that it is there for.
    fn is_completed(&self) -> bool {
        let progress = self.observed.as_ref().map(|o| &o.progress);
        progress == Some(&Progress::Completed)
    }

    pub fn components(&self) -> usize {
        let spec = &self.object.spec;
        spec.components.len() + usize::from(spec.service.is_some())
    }

    /// Whether another agent of the node serves it, and this one could not go on: it does not answer here yet, for no reason
    /// that only a change of it would mend.
    pub fn is_missed(&self) -> bool {
        let stuck = |fault: &Fault| fault.class == Class::Terminal;
        self.written_ready().is_some() && !self.is_ready() && !self.trouble().is_some_and(stuck)
    }

    /// This agent writes from now on, where another one did.
    pub fn take_over(&mut self, now: Instant) {
        self.patient_since = now;
        self.touch(now);
        self.take_as_told();
    }

    /// How many components' bytes are here.
    pub fn fetched(&self) -> usize {
        let components = self.observed.iter().flat_map(|o| &o.components);
        components.filter(|c| c.digest.is_some()).count()
    }

    // === Writing ===

    /// When the status is to be written.
    pub fn plan(&self, now: Instant) -> WritePlan {
        let Some(dirty) = self.dirty.filter(|_| !self.in_flight) else {
            return WritePlan::Nothing;
        };
        let retry = self
            .failures
            .checked_sub(1)
            .map(|n| RETRY.get(n).or(RETRY.last()).copied().unwrap_or_default());
        let pause = retry.unwrap_or(if self.flips() {
            Duration::ZERO
        } else {
            BETWEEN_WRITES
        });
        let at = self
            .last_write
            .map_or(dirty, |last| dirty.max(last + pause))
            .max(self.patient_since + self.patience());
        if at <= now {
            WritePlan::Now
        } else {
            WritePlan::At(at)
        }
    }

    /// How long a generation that is being started is left unreported.
    fn patience(&self) -> Duration {
        let under_way = match self.observed.as_ref().map(|o| &o.progress) {
            None => self.fault.is_none(),
            Some(Progress::Working(_)) => true,
            // A command is about to be run.
            Some(_) => self.fault.is_none() && self.asked.is_some() && self.holds_commands(),
        };
        match (under_way && !self.draining, self.written_end()) {
            (false, _) => Duration::ZERO,
            (true, Some(generation)) if generation == self.object.metadata.generation => {
                COMING_BACK
            }
            (true, _) => UNDER_WAY,
        }
    }

    /// The generation that was last written as Ready.
    fn written_ready(&self) -> Option<Option<i64>> {
        let conditions = &self.object.status.as_ref()?.conditions;
        let ready = conditions
            .iter()
            .find(|c| c.type_ == api::condition_type::READY)?;
        (ready.status == "True").then_some(ready.observed_generation)
    }

    /// The generation that was last written as being where it is to get: Ready, or done.
    fn written_end(&self) -> Option<Option<i64>> {
        let conditions = &self.object.status.as_ref()?.conditions;
        let done = conditions.iter().find(|c| {
            c.type_ == api::condition_type::READY && c.reason == Reason::Completed.as_str()
        });
        self.written_ready().or(done.map(|c| c.observed_generation))
    }

    /// Whether what is written of Ready is the opposite of what is.
    fn flips(&self) -> bool {
        let serving = !self.draining && self.observed.as_ref().is_some_and(|o| o.serving.is_some());
        self.written_ready().is_some() != serving
    }

    /// The status to write; none if it is written already.
    pub fn begin_write(
        &mut self,
        node: &str,
        now: SystemTime,
        monotonic: Instant,
    ) -> Option<Write> {
        self.dirty = None;
        let status = status::status(&StatusInput {
            workload: &self.object,
            node,
            fault: self.fault.as_ref(),
            observed: self.observed.as_ref(),
            draining: self.draining,
            now,
        });
        if !status::differs(self.object.status.as_ref(), &status) {
            self.failures = 0;
            return None;
        }
        self.in_flight = true;
        self.last_write = Some(monotonic);
        let (namespace, name) = self.place();
        Some(Write {
            namespace,
            name,
            body: status::apply_body(&self.object, &status),
        })
    }

    /// A write ended.
    pub fn written(&mut self, written: &Written, now: Instant) {
        self.in_flight = false;
        match written {
            Written::Applied(_) => self.failures = 0,
            Written::Conflict(_) | Written::Gone | Written::Failed => {
                self.failures += 1;
                self.touch(now);
            }
        }
    }

    /// Whether something is still to be written.
    pub fn unsettled(&self) -> bool {
        self.in_flight || self.dirty.is_some()
    }

    fn touch(&mut self, now: Instant) {
        self.dirty.get_or_insert(now);
    }

    fn set_fault(&mut self, fault: Option<Fault>, now: Instant) {
        if fault != self.fault {
            self.fault = fault;
            self.touch(now);
        }
    }
}

#[cfg(test)]
mod tests;
