//! The agent's main loop: the one owner of what is known about this node's workloads.
//!
//! It takes what the watch, the host, the API server's answers and the clock tell it, one at a time, and never waits for
//! anything in between: reads and writes run beside it and come back as [`Done`]. Every decision is made anew from what is
//! known at that moment, so nothing has to be undone when the world changes in the middle.

mod standing;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::core::error_boundary::InvalidObject;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    time::Instant,
};

use super::{
    super::{
        admin::Health,
        api,
        convert::{Outcome, ReferenceKey},
        events::Events,
        lease::Standing,
    },
    effects::{Done, Effects, Written},
    leave::{Phase, Reported},
    metrics::{Metrics, Outcome as WriteOutcome, WriteLabels},
    node::Load,
    references::References,
    tracked::{Evaluation, Term, Tracked, WritePlan},
    watch::Change,
};
use crate::{
    fault::{Fault, Stage},
    host::Host,
};

/// The loop proves that it is alive, and counts, at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// Wait before a workload that could not be read is read again.
const REREAD: Duration = Duration::from_secs(1);
/// Longest time for the last status writes at shutdown.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// What the loop is given.
pub(super) struct Control {
    pub node: Arc<str>,
    pub host: Arc<Host>,
    pub effects: Effects,
    pub events: Events,
    pub metrics: Metrics,
    pub health: Health,
    pub standing: watch::Receiver<Standing>,
    pub load: watch::Sender<Load>,
    /// Told whether this agent, standing by, could go on where the other one is.
    pub prepared: watch::Sender<bool>,
    /// Whether that is said on the Lease, where the other one looks.
    pub announced: watch::Receiver<bool>,
    /// Told how far the loop is.
    pub reported: watch::Sender<Reported>,
}

/// The loop's memory.
struct Loop {
    given: Control,
    workloads: HashMap<String, Tracked>,
    references: References,
    /// When to look at a workload's status again. Entries may be out of date, which costs a look.
    timers: BinaryHeap<Reverse<(Instant, String)>>,
    /// How the Lease stood when that was last acted on.
    stood: Standing,
    /// Whether that was ever known.
    stood_once: bool,
    /// Another agent of the node runs the services and jobs, or nobody knows yet who does.
    held: bool,
    /// How often this agent has come to hold the Lease.
    term: Term,
    phase: Phase,
}

impl Control {
    /// Runs until `leave` is done, which says how far it is.
    pub async fn run(
        self,
        mut changes: mpsc::Receiver<Change>,
        mut done: mpsc::Receiver<Done>,
        mut phase: watch::Receiver<Phase>,
        leave: impl Future<Output = ()>,
    ) {
        let mut host_changes = self.host.changes();
        let mut standing = self.standing.clone();
        let mut announced = self.announced.clone();
        let mut state = Loop {
            given: self,
            workloads: HashMap::new(),
            references: References::default(),
            timers: BinaryHeap::new(),
            stood: Standing::Unknown,
            stood_once: false,
            held: true,
            term: 0,
            phase: Phase::Running,
        };
        state.check_prepared();
        let mut beat = tokio::time::interval(BEAT);
        tokio::pin!(leave);
        loop {
            let due = state.next_due();
            tokio::select! {
                Some(change) = changes.recv(), if state.phase != Phase::Draining => state.change(change),
                changed = host_changes.recv() => match changed {
                    Ok(id) => state.host_changed(&id),
                    Err(RecvError::Lagged(_)) => state.host_changed_all(),
                    Err(RecvError::Closed) => {}
                },
                Some(done) = done.recv() => state.done(done),
                Ok(()) = standing.changed() => state.stands(),
                Ok(()) = announced.changed() => state.check_prepared(),
                Ok(()) = phase.changed() => state.enter(*phase.borrow_and_update()),
                () = &mut leave => break,
                _ = beat.tick() => state.beat(),
                () = tokio::time::sleep_until(due) => {}
            }
            state.act();
            state.report();
        }
        state.host_changed_all();
        // What cannot be written by then is written by the next agent.
        let _ = tokio::time::timeout(LAST_WRITES, state.finish(&mut done)).await;
    }
}

impl Loop {
    /// The watch told something.
    fn change(&mut self, change: Change) {
        match change {
            Change::Seen(object) => self.seen(object),
            Change::Unreadable(invalid) => self.unreadable(&invalid),
            Change::Gone(uid) => self.gone(&uid),
            Change::Synced => {
                tracing::info!(
                    workloads = self.workloads.len(),
                    "all workloads of this node are known"
                );
                self.given.health.synced();
            }
        }
    }

    fn seen(&mut self, object: Arc<api::Workload>) {
        let now = Instant::now();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        // Two watches and the answers to writes tell of the same object, each at its own pace.
        if self
            .workloads
            .get(&uid)
            .is_some_and(|known| known.is_newer_than(&object))
        {
            return;
        }
        if !on_node(&object, &self.given.node) {
            return self.gone(&uid);
        }
        let news = match self.workloads.entry(uid.clone()) {
            Entry::Occupied(mut known) => known.get_mut().update(object, now),
            Entry::Vacant(free) => {
                free.insert(Tracked::new(object, now));
                true
            }
        };
        if news {
            self.evaluate(&uid);
        }
        self.look(&uid);
    }

    fn unreadable(&mut self, invalid: &InvalidObject) {
        let uid = invalid.metadata.uid.clone().unwrap_or_default();
        let tracked = Tracked::unreadable(invalid, self.workloads.remove(&uid), Instant::now());
        self.workloads.insert(uid.clone(), tracked);
        self.look(&uid);
    }

    /// A workload was deleted, or given to another node: from here on nothing of it is written.
    fn gone(&mut self, uid: &str) {
        if self.workloads.remove(uid).is_some() {
            self.references.forget(uid);
            self.given.host.remove(uid);
        }
    }

    /// Converts what is wanted, if all that it names is known, and states it to the host.
    fn evaluate(&mut self, uid: &str) {
        if self.phase == Phase::Draining {
            return;
        }
        let now = Instant::now();
        let Some(tracked) = self.workloads.get_mut(uid) else {
            return;
        };
        let (evaluation, wanted) = tracked.evaluate(&self.references, now);
        self.references.want(uid, &wanted, tracked.since());
        match evaluation {
            Evaluation::Desired(mut desired) => {
                desired.commands.held = self.held || !tracked.may_run_in(self.term);
                // Who stands by leaves the telling to the other agent.
                if self.stood == Standing::Holder {
                    tracked.tell_unusable(&desired, &self.given.events);
                }
                self.given.host.set(*desired);
            }
            Evaluation::Wants | Evaluation::Faulty => {}
        }
    }

    fn host_changed(&mut self, uid: &str) {
        if let Some(tracked) = self.workloads.get_mut(uid) {
            tracked.observe(self.given.host.observe(uid), Instant::now());
        }
        self.look(uid);
    }

    fn host_changed_all(&mut self) {
        for uid in self.uids() {
            self.host_changed(&uid);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Read { key, outcome } => self.read(&key, outcome),
            Done::Reread { uid, term, object } => self.reread(&uid, term, object),
            Done::Wrote { uid, written } => self.wrote(&uid, written),
        }
    }

    fn read(&mut self, key: &ReferenceKey, outcome: Option<Outcome>) {
        self.given.metrics.reference_reads.inc();
        for uid in self.references.learned(key, outcome, Instant::now()) {
            self.evaluate(&uid);
            self.look(&uid);
        }
    }

    fn reread(&mut self, uid: &str, term: Term, object: Option<Arc<api::Workload>>) {
        let Some(tracked) = self.workloads.get_mut(uid) else {
            return;
        };
        tracked.was_read(term, object.is_some());
        match object {
            Some(object) => {
                self.seen(object);
                self.evaluate(uid);
            }
            None => {
                let again = Instant::now() + REREAD;
                self.timers.push(Reverse((again, uid.to_owned())));
            }
        }
    }

    fn wrote(&mut self, uid: &str, written: Written) {
        let outcome = match &written {
            Written::Applied(_) => WriteOutcome::Applied,
            Written::Conflict(_) => WriteOutcome::Conflict,
            Written::Gone => WriteOutcome::Gone,
            Written::Failed => WriteOutcome::Failed,
        };
        self.given
            .metrics
            .status_writes
            .get_or_create(&WriteLabels { outcome })
            .inc();
        let Some(tracked) = self.workloads.get_mut(uid) else {
            return;
        };
        tracked.written(&written, Instant::now());
        match written {
            Written::Applied(object) | Written::Conflict(Some(object)) => self.seen(object),
            // The watch will say what became of it.
            Written::Conflict(None) | Written::Gone | Written::Failed => self.look(uid),
        }
    }

    /// Looks at one workload after something about it changed: what is there to tell, to write, to wait for?
    fn look(&mut self, uid: &str) {
        let now = Instant::now();
        let Some(tracked) = self.workloads.get_mut(uid) else {
            return;
        };
        // What it names can mend only what came of it.
        let waits = |fault: &Fault| matches!(fault.stage, Stage::Configure | Stage::Fetch);
        self.references
            .waits(uid, tracked.trouble().is_some_and(waits), now);
        // Who does not know yet that it holds the Lease has not settled who runs what.
        if self.stood != Standing::Holder || *self.given.standing.borrow() != Standing::Holder {
            return;
        }
        if !self.held && tracked.ask_in(self.term, now) {
            let place = tracked.place();
            self.given.effects.reread(uid.to_owned(), self.term, place);
        }
        tracked.tell(&self.given.events);
        match tracked.plan(now) {
            WritePlan::Nothing => {}
            WritePlan::At(at) => self.timers.push(Reverse((at, uid.to_owned()))),
            WritePlan::Now => {
                if let Some(write) = tracked.begin_write(&self.given.node, SystemTime::now(), now) {
                    self.given.effects.write(uid.to_owned(), write);
                }
            }
        }
    }

    fn look_at_all(&mut self) {
        for uid in self.uids() {
            self.look(&uid);
        }
    }

    fn uids(&self) -> Vec<String> {
        self.workloads.keys().cloned().collect()
    }

    /// Starts what is due.
    fn act(&mut self) {
        let now = Instant::now();
        for key in self.references.due(now) {
            self.given.effects.read(key);
        }
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
            && let Some(Reverse((_, uid))) = self.timers.pop()
        {
            self.look(&uid);
        }
    }

    fn next_due(&self) -> Instant {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        [self.references.next(), timer]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + BEAT)
    }

    /// Shows that the loop is alive, and counts.
    fn beat(&mut self) {
        self.given.health.beat();
        self.check_prepared();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let workloads = self.workloads.values();
        let load = Load {
            workloads: self.workloads.len(),
            components: workloads.clone().map(Tracked::components).sum(),
            fetched: workloads.clone().map(Tracked::fetched).sum(),
            draining: self.phase == Phase::Draining,
        };
        self.given.metrics.workloads.set(count(load.workloads));
        self.given
            .metrics
            .workloads_ready
            .set(count(workloads.filter(|w| w.is_ready()).count()));
        self.given
            .load
            .send_if_modified(|before| std::mem::replace(before, load) != load);
    }
}

/// Whether a workload is on a node: pinned to it, or not pinned and assigned to it. One that is being deleted (a finalizer
/// keeps its object) is on none.
fn on_node(workload: &api::Workload, node: &str) -> bool {
    if workload.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match workload.spec.host_id.as_deref().filter(|id| !id.is_empty()) {
        Some(pinned) => pinned == node,
        None => workload.status.as_ref().and_then(|s| s.host_id.as_deref()) == Some(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_where_it_is_pinned_or_else_assigned() {
        let workload = |pinned: Option<&str>, assigned: Option<&str>| api::Workload {
            spec: api::WorkloadSpec {
                host_id: pinned.map(Into::into),
                ..Default::default()
            },
            status: Some(api::WorkloadStatus {
                host_id: assigned.map(Into::into),
                ..Default::default()
            }),
            ..Default::default()
        };
        let cases = [
            (Some("a"), None, true),
            (Some("a"), Some("b"), true),
            (Some("b"), Some("a"), false),
            (None, Some("a"), true),
            (Some(""), Some("a"), true),
            (None, Some("b"), false),
            (None, None, false),
        ];
        for (pinned, assigned, here) in cases {
            assert_eq!(
                on_node(&workload(pinned, assigned), "a"),
                here,
                "{pinned:?} {assigned:?}"
            );
        }
    }
}
