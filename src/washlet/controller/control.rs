//! The leader's loop: the one owner of what is known and decided.
//!
//! It takes what the watches, the answers to writes and the clock tell it, one at a time, and never waits for anything in
//! between. What has changed is marked (`react`), what is marked is decided anew from what is known at that moment (`decide`),
//! and what was decided is written beside the loop (`effects`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use tokio::{sync::mpsc, sync::watch as channel, time::Instant};

use super::{
    super::{admin::Health, events::Events, lease::Standing},
    Scope,
    effects::{Done, Effects, Written},
    hosts,
    liveness::{Evictions, Judgement, Liveness},
    metrics::Metrics,
    part::Placement,
    placement::Placements,
    routes::Routes,
    task::{Queue, Task},
    traffic::Ports,
    watch::{Change, Object, Watches},
    world::{Id, World},
    write::{Kind, Write},
};

/// The loop proves that it is alive, and looks whether hosts are, at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// Writes that run at once.
const EFFECTS: usize = 32;
/// Changes that are taken before anything is decided.
const BATCH: usize = 512;

/// What the loop is given.
pub(super) struct Control {
    pub client: Client,
    pub scope: Arc<Scope>,
    pub events: Events,
    pub metrics: Metrics,
    pub health: Health,
}

/// What a leader knows and has decided. All of it can be learned again from the API server.
pub(super) struct Leader<'a> {
    pub given: &'a Control,
    pub world: World,
    pub queue: Queue,
    pub liveness: Liveness,
    pub judgement: Judgement,
    pub evictions: Evictions,
    pub placements: Placements,
    pub routes: Routes,
    pub ports: Ports,
    /// Hosts that had the last workload of a Service until a moment ago, and how long they are still told of.
    pub leaving: BTreeMap<(Id, Arc<str>), Instant>,
    /// Why the API server would not have the last object that was to be made for somebody.
    pub refusals: HashMap<Task, String>,
    /// When workloads that fit nowhere last heard why.
    pub explained: HashMap<Id, Instant>,
    /// The earliest time of the next placement.
    pub placed: Option<Instant>,
    effects: Effects,
    /// Watches that have not told all yet.
    unsynced: usize,
}

impl Control {
    /// Acts whenever this process is the leader; never ends.
    pub async fn run(self, mut standing: channel::Receiver<Standing>) {
        loop {
            let idle = async {
                let mut beat = tokio::time::interval(BEAT);
                loop {
                    beat.tick().await;
                    self.health.beat();
                }
            };
            tokio::select! {
                () = idle => {}
                changed = standing.wait_for(|s| *s != Standing::Unknown) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            self.health.synced();
            if *standing.borrow_and_update() == Standing::Holder {
                tracing::info!("leading");
                self.lead(&mut standing).await;
                tracing::info!("leading no more");
            } else {
                tokio::select! {
                    changed = standing.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(BEAT) => self.health.beat(),
                }
            }
        }
    }

    /// Acts until this process is the leader no more.
    async fn lead(&self, standing: &mut channel::Receiver<Standing>) {
        let (watches, mut changes) = Watches::start(&self.client, &self.scope, &self.metrics);
        let (effects, mut done) = Effects::new(self.client.clone(), EFFECTS, self.metrics.clone());
        let mut leader = Leader::new(self, effects, watches.len());
        let mut beat = tokio::time::interval(BEAT);
        loop {
            let due = leader
                .queue
                .next_due()
                .unwrap_or_else(|| Instant::now() + BEAT);
            tokio::select! {
                Some(change) = changes.recv() => leader.take(change, &mut changes),
                Some(done) = done.recv() => leader.done(done),
                changed = standing.wait_for(|s| *s != Standing::Holder) => {
                    let _ = changed;
                    return;
                }
                _ = beat.tick() => leader.beat(),
                () = tokio::time::sleep_until(due) => {}
            }
            leader.act();
        }
    }
}

impl<'a> Leader<'a> {
    fn new(given: &'a Control, effects: Effects, watches: usize) -> Self {
        let mut liveness = Liveness::default();
        Self {
            given,
            world: World::new(&given.scope.system_namespace),
            queue: Queue::default(),
            judgement: liveness.judge(Instant::now()),
            liveness,
            evictions: Evictions::default(),
            placements: Placements::new(),
            routes: Routes::default(),
            ports: Ports::default(),
            leaving: BTreeMap::new(),
            refusals: HashMap::new(),
            explained: HashMap::new(),
            placed: None,
            effects,
            unsynced: watches,
        }
    }

    /// Takes a change, and those that wait behind it.
    fn take(&mut self, first: Change, more: &mut mpsc::Receiver<Change>) {
        self.change(first);
        for _ in 0..BATCH {
            let Ok(change) = more.try_recv() else { break };
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        let changed = match change {
            Change::Seen(object) => self.world.seen(object),
            Change::Gone(object) => self.world.gone(&object),
            Change::Synced => {
                self.unsynced = self.unsynced.saturating_sub(1);
                if self.unsynced == 0 {
                    self.begin();
                }
                None
            }
        };
        if let Some(changed) = changed {
            self.react(&changed);
        }
    }

    /// All is known: what former leaders gave out is taken up, and everything is looked at once.
    fn begin(&mut self) {
        let workloads = self.world.workloads.values();
        let given: Vec<(Id, u16)> = workloads
            .filter_map(|workload| {
                let port = workload.status.as_ref()?.service_port?;
                Some((World::service_of(workload)?, u16::try_from(port).ok()?))
            })
            .collect();
        for (service, port) in given {
            self.ports.restore(&service, port);
        }
        self.judge();
        tracing::info!(
            workloads = self.world.workloads.len(),
            hosts = self.world.hosts().count(),
            "all is known"
        );
        self.mark_all();
    }

    /// A write ended.
    fn done(&mut self, done: Done) {
        let Done {
            task,
            key,
            version,
            written,
        } = done;
        tracing::debug!(?task, ?key, outcome = written.word(), "written");
        let owner = Id::new(&key.namespace, &key.name);
        let mut failed = !matches!(written, Written::Now(_) | Written::Deleted(_));
        let child = matches!(
            (&task, key.kind),
            (Task::ReplicaSet(_), Kind::Workload) | (Task::Deployment(_), Kind::ReplicaSet)
        );
        match written {
            Written::Now(object) => {
                if let Some(changed) = self.world.seen(object) {
                    self.react(&changed);
                }
            }
            Written::Deleted(uid) => {
                self.forget(key.kind, &owner, |last| last.uid.as_deref() == Some(&uid));
            }
            // Another one of the name may have come meanwhile.
            Written::Missing => {
                failed = !self.forget(key.kind, &owner, |last| {
                    version.is_some() && last.resource_version == version
                });
            }
            Written::Refused(why) if child => {
                self.refusals.insert(task.clone(), why);
                self.queue.mark(task.clone());
            }
            Written::Refused(_) => {}
            Written::Outdated | Written::Failed => {}
        }
        if child && !failed {
            self.refusals.remove(&task);
        }
        self.queue.ended(&task, failed, Instant::now());
    }

    /// Forgets an object that is gone, if the one that is known is the one. False if it is not.
    fn forget(&mut self, kind: Kind, id: &Id, is: impl Fn(&ObjectMeta) -> bool) -> bool {
        let world = &self.world;
        let last = match kind {
            Kind::Workload => world.workloads.get(id).cloned().map(Object::Workload),
            Kind::ReplicaSet => world.sets.get(id).cloned().map(Object::ReplicaSet),
            Kind::Deployment => world.deployments.get(id).cloned().map(Object::Deployment),
            Kind::EndpointSlice => world.slices.get(id).cloned().map(Object::EndpointSlice),
            #[cfg(test)]
            Kind::Artifact => None,
        };
        let last = last.filter(|last| is(last.meta()));
        let changed = last.and_then(|last| self.world.deleted(&last, Instant::now()));
        if let Some(changed) = &changed {
            self.react(changed);
        }
        changed.is_some()
    }

    /// Decides what is due.
    fn act(&mut self) {
        if self.unsynced > 0 {
            return;
        }
        let now = Instant::now();
        while let Some(task) = self.queue.next(now) {
            let writes = self.decide(&task, now);
            if writes.is_empty() {
                self.queue.settled(&task);
            }
            for write in writes {
                self.start(&task, write);
            }
        }
    }

    fn start(&mut self, task: &Task, write: Write) {
        tracing::debug!(?task, ?write, "write");
        self.queue.began(task);
        self.effects.start(task.clone(), write);
    }

    /// Shows that the loop is alive, looks whether hosts are, and counts.
    fn beat(&mut self) {
        self.given.health.beat();
        if self.unsynced > 0 {
            return;
        }
        self.world.forget_deleted(Instant::now());
        self.judge();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = &self.given.metrics;
        metrics.workloads.set(count(self.world.workloads.len()));
        metrics.hosts.set(count(self.world.hosts().count()));
        let nowhere = |placement: &&Placement| matches!(placement, Placement::Nowhere { .. });
        let nowhere = self.placements.values().filter(nowhere).count();
        metrics.unschedulable.set(count(nowhere));
        metrics
            .suspended
            .set(i64::from(self.judgement.suspended.is_some()));
    }

    /// Looks which hosts are alive, and marks what that changes.
    pub(super) fn judge(&mut self) {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let (world, liveness) = (&self.world, &mut self.liveness);
        for id in world.all_hosts() {
            hosts::observe(liveness, id, world.lease(id).map(|l| &**l), now, wall);
        }
        liveness.retain(|host| world.is_host(host));
        let before = std::mem::replace(&mut self.judgement, self.liveness.judge(now));
        self.react_to_judgement(&before);
    }
}
