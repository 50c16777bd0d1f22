//! How the main loop begins to write where another agent did, and how it ends.

use tokio::{sync::mpsc, time::Instant};

use super::{Done, Loop, Phase, Reported, Standing, Tracked};

impl Loop {
    /// The Lease stands otherwise.
    pub(super) fn stands(&mut self) {
        let now = *self.given.standing.borrow();
        let before = std::mem::replace(&mut self.stood, now);
        self.stood_once |= now != Standing::Unknown;
        if (before, now) == (Standing::Standby, Standing::Holder) {
            tracing::info!(
                workloads = self.workloads.len(),
                "going on where another agent was"
            );
            let at = Instant::now();
            for tracked in self.workloads.values_mut() {
                tracked.take_over(at);
            }
        }
        match now {
            Standing::Holder => self.hold(false),
            Standing::Standby => self.hold(true),
            // Who cannot renew its Lease goes on as it was.
            Standing::Unknown => {}
        }
        self.check_prepared();
        self.look_at_all();
    }

    /// Leaves services and jobs to another agent of the node, or runs them. What cannot be stated anew, since something that it
    /// names is being read, is stated when it can be.
    fn hold(&mut self, held: bool) {
        if std::mem::replace(&mut self.held, held) != held {
            self.term += u64::from(!held);
            let concerned = self.workloads.iter().filter(|(_, w)| w.may_run_commands());
            let concerned: Vec<String> = concerned.map(|(uid, _)| uid.clone()).collect();
            for uid in concerned {
                self.evaluate(&uid);
            }
        }
    }

    /// Finds out whether this agent could go on where the other agent of the node is. Once it could, it stays so.
    pub(super) fn check_prepared(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        if *self.given.prepared.borrow() {
            // Whoever replaces the other agent because this one is ready must find it announced.
            if *self.given.announced.borrow() || self.stood == Standing::Holder {
                self.given.health.prepared(None);
            }
            return;
        }
        let unprepared = match self.stood {
            Standing::Holder => None,
            // A holder that cannot renew its Lease goes on serving.
            Standing::Unknown if self.given.health.is_synced() && self.stood_once => return,
            Standing::Unknown => Some("it is not known yet who holds the node's Lease".to_owned()),
            Standing::Standby if !self.given.health.is_synced() => {
                Some("the node's workloads are not known yet".to_owned())
            }
            Standing::Standby => {
                let missing = self.workloads.values().filter(|w| w.is_missed()).count();
                (missing > 0).then(|| {
                    format!("standing by; workloads that another agent serves and that do not run here yet: {missing}")
                })
            }
        };
        let prepared = unprepared.is_none() && self.stood == Standing::Standby;
        if prepared {
            tracing::info!(workloads = self.workloads.len(), "standing by, prepared");
            self.given.prepared.send_replace(true);
            let unsaid = "standing by, prepared; the node's Lease does not say so yet";
            return self.given.health.prepared(Some(unsaid.to_owned()));
        }
        self.given.health.prepared(unprepared);
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        if phase != Phase::Running {
            self.given.health.draining();
        }
        match phase {
            // They end here before they begin there.
            Phase::HandingOver => self.hold(true),
            Phase::Draining => self.begin_draining(),
            Phase::Running => {}
        }
    }

    fn begin_draining(&mut self) {
        tracing::info!(
            workloads = self.workloads.len(),
            "shutting down: workloads finish what is in flight"
        );
        let now = Instant::now();
        for tracked in self.workloads.values_mut() {
            tracked.drain(now);
        }
        self.beat();
        self.look_at_all();
    }

    /// Whether something is still to be written.
    fn unsettled(&self) -> bool {
        self.workloads.values().any(Tracked::unsettled)
    }

    /// Whether a service or a job runs that is another agent's to run.
    fn runs_commands(&self) -> bool {
        self.held && self.workloads.values().any(Tracked::runs_commands)
    }

    /// Reports how far the loop is, to whoever leads the agent out.
    pub(super) fn report(&self) {
        if self.phase == Phase::Running {
            return;
        }
        let now = Reported {
            phase: self.phase,
            settled: !self.unsettled() && !self.runs_commands(),
        };
        self.given
            .reported
            .send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// Lets the last status writes end.
    pub(super) async fn finish(&mut self, done: &mut mpsc::Receiver<Done>) {
        while self.stood == Standing::Holder
            && *self.given.standing.borrow() == Standing::Holder
            && self.unsettled()
        {
            tokio::select! {
                Some(done) = done.recv() => self.done(done),
                () = tokio::time::sleep_until(self.next_due()) => {}
            }
            self.act();
        }
    }
}
