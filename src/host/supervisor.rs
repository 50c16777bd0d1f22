//! The one task that owns a workload: it asks [`step`] what to do, does that one thing, and publishes what came of it.
//!
//! A changed desired state interrupts the step in hand; what it fetched or compiled stays in the caches, so beginning anew is
//! cheap and needs no bookkeeping here.

mod guard;
mod look;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Shared,
    observed::{Observed, Progress, Timings},
    prepare::{Candidate, Generation},
    step::{Failure, Prepared, Step, View, delay, step},
};
use crate::{
    fault::{Class, Fault, Stage},
    plugin::wasi::Kept,
    source::Freshness,
    spec::{self, Digest},
};

pub(super) use guard::spawn;

use look::{Said, components, first_look};

/// Files of volumes that could not be written are tried again after this long.
const FILES_AGAIN: Duration = Duration::from_secs(10);

type Desired = Option<Arc<spec::Workload>>;

struct Supervisor<'a> {
    shared: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    observed: &'a watch::Sender<Observed>,
    kept: &'a Kept,
    /// Plugins ring it when the state of a binding changes.
    signal: Arc<Notify>,
    /// The generation that should answer, as far as it is prepared; none once it does.
    candidate: Option<Candidate>,
    serving: Option<Generation>,
    /// How what serves was started.
    started: Timings,
    failure: Option<Failure>,
    /// The bytes of the last failure: the same bytes fail the same way, so they are not compiled again.
    failed_digests: Vec<Digest>,
    /// When to write files of volumes again.
    files_due: Option<Instant>,
    /// Former generations that finish their requests.
    draining: JoinSet<()>,
}

enum Woken {
    Done(Result<(), Fault>),
    Interrupted,
}

impl<'a> Supervisor<'a> {
    fn new(
        shared: Arc<Shared>,
        workload: Arc<spec::Workload>,
        desired: watch::Receiver<Desired>,
        observed: &'a watch::Sender<Observed>,
        kept: &'a Kept,
    ) -> Self {
        Self {
            shared,
            desired,
            observed,
            kept,
            signal: Arc::new(Notify::new()),
            candidate: Some(Candidate::new(workload)),
            serving: None,
            started: Timings::default(),
            failure: None,
            failed_digests: Vec::new(),
            files_due: None,
            draining: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        self.desired.mark_changed();
        loop {
            self.follow_desired().await;
            self.look_at_bindings();
            let now = Instant::now();
            match step(self.view(), now) {
                Step::Stop => return Box::pin(self.stop()).await,
                Step::Wait(until) => self.wait(until).await,
                doing => self.perform(doing).await,
            }
        }
    }

    fn view(&self) -> View<'_> {
        View {
            wanted: self.desired.borrow().is_some(),
            current: self.candidate.is_none(),
            prepared: self
                .candidate
                .as_ref()
                .map_or(Prepared::Nothing, Candidate::prepared),
            failure: self.failure.as_ref(),
        }
    }

    /// Lets volumes follow the desired state, and takes it over if it has changed. Both see the same one: it may be another one
    /// by the time that the files are written.
    async fn follow_desired(&mut self) {
        let news = self.desired.has_changed().unwrap_or(false);
        let due = self.files_due.is_some_and(|at| at <= Instant::now());
        let workload = match (news, due) {
            (true, _) => self.desired.borrow_and_update().clone(),
            (false, true) => self.desired.borrow().clone(),
            (false, false) => return,
        };
        let Some(workload) = workload else { return };
        let done = self.kept.follow(&workload).await;
        self.files_due = (!done).then(|| Instant::now() + FILES_AGAIN);
        if news {
            self.adopt(workload);
        }
    }

    /// Takes over a changed desired state.
    fn adopt(&mut self, workload: Arc<spec::Workload>) {
        // Where traffic comes from is the workload's, whichever generation of it answers.
        if let Some(serving) = &mut self.serving {
            serving.update(&workload);
        }
        if let Some(serving) = &mut self.serving
            && serving.workload.runs_like(&workload)
        {
            // Back to what runs already, or nothing that matters to it changed.
            serving.workload = workload.clone();
            let (digests, said) = (serving.digests.clone(), Said::by(serving));
            self.candidate = None;
            self.failure = None;
            self.publish(|o| {
                o.generation = workload.generation;
                o.stamp = workload.stamp;
                // A state that was tried in between has left its own here.
                o.components = components(&workload, &digests);
                o.timings = self.started;
                said.show(o, true);
            });
            return;
        }
        // What is begun goes on; only at the very beginning it is the same, and is told.
        if let Some(candidate) = &mut self.candidate
            && candidate.workload != workload
            && candidate.workload.starts_like(&workload)
        {
            return candidate.update(workload);
        }
        self.failure = None;
        self.failed_digests.clear();
        self.candidate = Some(Candidate::new(workload.clone()));
        self.publish(|o| {
            let serving = o.serving.take();
            *o = Observed {
                serving,
                ..first_look(&workload)
            };
        });
    }

    /// Waits for a time, a change or a signal.
    async fn wait(&mut self, until: Option<Instant>) {
        let signal = self.signal.clone();
        let until = until.into_iter().chain(self.files_due).min();
        let timer = async {
            match until {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error means that the host is gone, which aborts this task.
            _ = self.desired.changed() => self.desired.mark_changed(),
            () = signal.notified() => {}
            () = timer => {}
            Some(_) = self.draining.join_next() => {}
        }
    }

    /// Does one step, unless the desired state changes first.
    async fn perform(&mut self, doing: Step) {
        let Some(mut candidate) = self.candidate.take() else {
            return;
        };
        let stage = match doing {
            Step::Fetch(_) => Stage::Fetch,
            Step::Compile => Stage::Compile,
            Step::Link => Stage::Link,
            _ => Stage::Start,
        };
        self.announce(stage);
        let woken = {
            let shared = &self.shared;
            // On the heap for as long as it takes: a pull's state is many times that of a workload that has nothing to do, and
            // all tasks are as large as their largest state.
            let mut work = Box::pin(async {
                match doing {
                    Step::Fetch(freshness) => candidate.fetch(shared, freshness).await,
                    Step::Compile => candidate.compile(shared).await,
                    Step::Link => candidate.link(shared, &self.signal, self.kept).await,
                    _ => candidate.start(),
                }
            });
            let mut desired = self.desired.clone();
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => break Woken::Done(done),
                    _ = desired.changed() => break Woken::Interrupted,
                    // A pull may take hours, in which what serves may fail.
                    () = self.signal.notified() => self.look_at_serving(false),
                }
            }
        };
        self.candidate = Some(candidate);
        match woken {
            Woken::Interrupted => self.desired.mark_changed(),
            Woken::Done(Err(fault)) => self.failed(fault),
            Woken::Done(Ok(())) => self.stepped(stage, doing),
        }
    }

    /// A step succeeded.
    fn stepped(&mut self, stage: Stage, doing: Step) {
        let now = SystemTime::now();
        let digests = self
            .candidate
            .as_ref()
            .map(|c| c.digests.clone())
            .unwrap_or_default();
        self.publish_quietly(|o| {
            match stage {
                Stage::Fetch => o.timings.fetched = Some(now),
                Stage::Compile => o.timings.compiled = Some(now),
                Stage::Link => o.timings.linked = Some(now),
                _ => {}
            }
            for (component, digest) in o.components.iter_mut().zip(&digests) {
                component.digest = Some(digest.clone());
            }
        });
        if doing == Step::Fetch(Freshness::Revalidate)
            && digests == self.failed_digests
            && let Some(failure) = self.failure.take()
        {
            self.failure = Some(failure.clone());
            self.failed(failure.fault);
        }
    }

    /// A step failed: remember why, and when to try again.
    fn failed(&mut self, fault: Fault) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if fault.class == Class::Terminal {
            self.failed_digests.clone_from(&candidate.digests);
        }
        candidate.reset();
        let attempts = self
            .failure
            .as_ref()
            .map_or(1, |f| f.attempts.saturating_add(1));
        let wait = delay(&fault, attempts, candidate.workload.may_change_at_source());
        tracing::warn!(
            namespace = candidate.workload.namespace,
            workload = candidate.workload.name,
            reason = fault.reason.as_str(),
            attempts,
            "{fault}"
        );
        self.failure = Some(Failure {
            fault: fault.clone(),
            attempts,
            retry_at: wait.map(|w| Instant::now() + w),
        });
        let retry_at = wait.map(|w| SystemTime::now() + w);
        self.publish(|o| {
            o.progress = Progress::Failed {
                fault,
                attempts,
                retry_at,
            }
        });
    }

    /// Follows what the plugins say of the started generations.
    fn look_at_bindings(&mut self) {
        match self.candidate.as_ref().and_then(Candidate::answers) {
            Some(Ok(())) => self.flip(),
            Some(Err(fault)) => {
                self.publish(|o| {
                    o.progress = Progress::Failed {
                        fault,
                        attempts: 1,
                        retry_at: None,
                    }
                });
                self.look_at_serving(false);
            }
            None => self.look_at_serving(self.candidate.is_none()),
        }
    }

    /// What answers may lose what it needs to answer, and get it back. Whether it is the `current` one: no other is to follow.
    fn look_at_serving(&self, current: bool) {
        let Some(serving) = &self.serving else { return };
        let said = Said::by(serving);
        self.publish(|o| said.show(o, current));
    }

    /// The candidate answers: it is what serves now, and the former generation finishes.
    fn flip(&mut self) {
        let Some(mut generation) = self.candidate.take().and_then(Candidate::into_generation)
        else {
            return;
        };
        let now = SystemTime::now();
        let number = generation.workload.generation;
        tracing::info!(
            namespace = generation.workload.namespace,
            workload = generation.workload.name,
            generation = number,
            "serving"
        );
        generation.run();
        // What has ended for good already, or waits for another host to end, is so from the start: nothing rings for it.
        let said = Said::by(&generation);
        if let Some(former) = self.serving.replace(generation) {
            let grace = former.workload.grace;
            self.draining.spawn(former.drain(grace));
        }
        self.failure = None;
        self.publish(|o| {
            // Not since the former generation answered.
            o.serving = None;
            o.timings.started = Some(now);
            said.show(o, true);
        });
        self.started = self.observed.borrow().timings;
    }

    /// Finishes what runs, and ends.
    async fn stop(mut self) {
        self.candidate = None;
        self.publish(|o| o.progress = Progress::Draining);
        if let Some(generation) = self.serving.take() {
            let grace = generation.workload.grace;
            generation.drain(grace).await;
        }
        while self.draining.join_next().await.is_some() {}
    }

    /// Says which stage is in hand, unless a failure is being retried: a status that flips back and forth every few seconds
    /// tells nobody anything.
    fn announce(&self, stage: Stage) {
        if self.failure.is_none() {
            self.publish(|o| o.progress = Progress::Working(stage));
        }
    }

    /// Changes what is observed, and tells the host's readers if it is different.
    fn publish(&self, change: impl FnOnce(&mut Observed)) {
        if self.publish_quietly(change) {
            let id = self.observed.borrow().id.clone();
            // Without a reader there is nobody to tell.
            let _ = self.shared.changes.send(id);
        }
    }

    /// Changes what is observed; readers learn of it with the next change that matters, or by looking.
    fn publish_quietly(&self, change: impl FnOnce(&mut Observed)) -> bool {
        self.observed.send_if_modified(|o| {
            let before = o.clone();
            change(o);
            *o != before
        })
    }
}
