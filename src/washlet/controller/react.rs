//! What has to be looked at anew when something changed.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::{
    super::api::{self, Condition, condition_type},
    control::Leader,
    hosts,
    liveness::{Judgement, State},
    placement::is_pinned,
    task::Task,
    world::{Changed, Id, Step, World},
};

/// How long the endpoint of a host that lost its last workload of a Service is told of as terminating: until every proxy has
/// heard of it, and longer than the agent goes on serving.
const LEAVING: Duration = Duration::from_secs(10);

impl Leader<'_> {
    /// Marks what a change is about.
    pub(super) fn react(&mut self, changed: &Changed) {
        match changed {
            Changed::Workload(step) => self.workload_changed(step),
            Changed::ReplicaSet(step) => self.set_changed(step),
            Changed::Deployment(step) => self.queue.mark(Task::Deployment(step.id.clone())),
            Changed::Artifact(step) => self.mark_deployments_in(&step.id.namespace),
            Changed::Host(step) => self.host_changed(step),
            Changed::Lease(step) => self.lease_changed(step),
            Changed::Node(step) => {
                let same = step
                    .before
                    .as_ref()
                    .zip(step.after.as_ref())
                    .is_some_and(|(before, after)| !hosts::node_differs(before, after));
                if !same {
                    self.queue.mark(Task::Placement);
                    self.mark_workloads_on(&step.id.name);
                }
            }
            Changed::Service(step) => {
                self.queue.mark(Task::Service(step.id.clone()));
                self.mark_workloads_behind(&step.id);
            }
            Changed::EndpointSlice(step) => {
                let slice = step.after.as_ref().or(step.before.as_ref());
                let labels = slice.and_then(|s| s.metadata.labels.as_ref());
                if let Some(service) = labels.and_then(|l| l.get("kubernetes.io/service-name")) {
                    self.queue
                        .mark(Task::Service(Id::new(&step.id.namespace, service)));
                }
            }
        }
    }

    fn workload_changed(&mut self, step: &Step<api::Workload>) {
        let (id, before, after) = (&step.id, step.before.as_deref(), step.after.as_deref());
        for affected in self.routes.update(id, after) {
            self.queue.mark(Task::Workload(affected));
        }
        let task = Task::Workload(id.clone());
        match after {
            Some(_) => self.queue.mark(task),
            None => self.queue.forget(&task),
        }
        let uid = |workload: &api::Workload| workload.metadata.uid.clone();
        if before.and_then(uid) != after.and_then(uid) || after.is_some_and(is_pinned) {
            // Decided about another one of this name, or before it named its host itself.
            self.placements.remove(id);
        }
        if place(before) != place(after) {
            self.queue.mark(Task::Placement);
        }
        for workload in [before, after].into_iter().flatten() {
            self.mark_owner(workload);
        }
        self.leave(before, after);
        let services = [before, after]
            .into_iter()
            .flatten()
            .filter_map(World::service_of);
        for service in services {
            self.queue.mark(Task::Service(service));
        }
    }

    /// Marks the replica set of a workload, or all that could adopt it.
    fn mark_owner(&mut self, workload: &api::Workload) {
        let meta = &workload.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut owners = meta.owner_references.iter().flatten();
        match owners.find(|owner| owner.controller == Some(true)) {
            Some(owner) => {
                let set = Id::new(namespace, &owner.name);
                // The deployment counts the Workloads itself: its set's status may have been right before they were known.
                let meta = self.world.sets.get(&set).map(|set| &set.metadata);
                let mut owners = meta
                    .into_iter()
                    .flat_map(|m| m.owner_references.iter().flatten());
                if let Some(deployment) = owners.find(|owner| owner.controller == Some(true)) {
                    let deployment = Id::new(namespace, &deployment.name);
                    self.queue.mark(Task::Deployment(deployment));
                }
                self.queue.mark(Task::ReplicaSet(set));
            }
            None => {
                let labels = meta.labels.as_ref();
                let Some(label) = labels.and_then(|l| l.get(api::label::REPLICA_SET)) else {
                    return;
                };
                for set in self.world.sets.ids_in(namespace) {
                    if api::label_value(&set.name) == *label {
                        self.queue.mark(Task::ReplicaSet(set.clone()));
                    }
                }
            }
        }
    }

    /// Remembers the host that a workload with a Service has left.
    fn leave(&mut self, before: Option<&api::Workload>, after: Option<&api::Workload>) {
        let at = |workload: &api::Workload| {
            let service = World::service_of(workload)?;
            Some((service, Arc::<str>::from(World::host_of(workload)?)))
        };
        let answered = before.is_some_and(is_ready);
        let (before, after) = (before.and_then(at), after.and_then(at));
        if before != after
            && answered
            && let Some(left) = before
        {
            let until = Instant::now() + LEAVING;
            self.queue.mark_at(Task::Service(left.0.clone()), until);
            self.leaving.insert(left, until);
        }
    }

    fn set_changed(&mut self, step: &Step<api::WorkloadReplicaSet>) {
        self.queue.mark(Task::ReplicaSet(step.id.clone()));
        for set in [&step.before, &step.after].into_iter().flatten() {
            let mut owners = set.metadata.owner_references.iter().flatten();
            match owners.find(|owner| owner.controller == Some(true)) {
                Some(owner) => {
                    let deployment = Id::new(&step.id.namespace, &owner.name);
                    self.queue.mark(Task::Deployment(deployment));
                }
                None => self.mark_deployments_in(&step.id.namespace),
            }
        }
    }

    fn lease_changed(&mut self, step: &Step<Lease>) {
        let (host, now, wall) = (&step.id.name, Instant::now(), Timestamp::now());
        if self.world.host(host).is_some() {
            hosts::observe(&mut self.liveness, host, step.after.as_deref(), now, wall);
        } else if step.before.is_none() != step.after.is_none() {
            // Without an object, the Lease is all that there is of a host.
            self.queue.mark(Task::Placement);
            self.mark_workloads_on(host);
        }
    }

    fn host_changed(&mut self, step: &Step<api::Host>) {
        let same = step
            .before
            .as_ref()
            .zip(step.after.as_ref())
            .is_some_and(|(before, after)| !hosts::differs(before, after));
        if same {
            return;
        }
        if step.before.is_none() || step.after.is_none() {
            // Its Lease may be known already, or be nobody's now.
            self.judge();
        }
        self.queue.mark(Task::Placement);
        self.mark_workloads_on(&step.id.name);
    }

    /// Marks what a new judgement changes.
    pub(super) fn react_to_judgement(&mut self, before: &Judgement) {
        let is_lost = |state: State| matches!(state, State::Lost { .. });
        let (mut placement, mut changed) = (false, Vec::new());
        let mut lost: usize = 0;
        for host in self.world.all_hosts() {
            let (was, is) = (before.of(host), self.judgement.of(host));
            placement |= was != is;
            lost += usize::from(is_lost(is));
            if is_lost(was) != is_lost(is) {
                changed.push((host.clone(), is_lost(is)));
            }
        }
        self.given
            .metrics
            .hosts_lost
            .set(i64::try_from(lost).unwrap_or(i64::MAX));
        for (host, is_lost) in changed {
            if is_lost {
                tracing::warn!(%host, "the host's agent gives no sign of life");
            } else {
                tracing::info!(%host, "the host's agent is back");
            }
            self.mark_workloads_on(&host);
        }
        if before.suspended != self.judgement.suspended {
            match &self.judgement.suspended {
                Some(why) => tracing::warn!(why, "no workload is moved"),
                None => tracing::info!("workloads of lost hosts are moved again"),
            }
            placement = true;
            // What was left as it was is judged anew.
            let hosts: Vec<_> = self.world.all_hosts().cloned().collect();
            for host in hosts {
                if is_lost(self.judgement.of(&host)) {
                    self.mark_workloads_on(&host);
                }
            }
        }
        if placement {
            self.queue.mark(Task::Placement);
        }
    }

    /// Marks everything that there is.
    pub(super) fn mark_all(&mut self) {
        self.queue.mark(Task::Placement);
        for id in self.world.workloads.ids() {
            self.queue.mark(Task::Workload(id.clone()));
        }
        for id in self.world.sets.ids() {
            self.queue.mark(Task::ReplicaSet(id.clone()));
        }
        for id in self.world.deployments.ids() {
            self.queue.mark(Task::Deployment(id.clone()));
        }
        for id in self.world.services.ids() {
            self.queue.mark(Task::Service(id.clone()));
        }
    }

    fn mark_deployments_in(&mut self, namespace: &str) {
        for id in self.world.deployments.ids_in(namespace) {
            self.queue.mark(Task::Deployment(id.clone()));
        }
    }

    fn mark_workloads_on(&mut self, host: &str) {
        for id in self.world.workloads_on(host) {
            self.queue.mark(Task::Workload(id.clone()));
            if let Some(service) = self
                .world
                .workloads
                .get(id)
                .and_then(|w| World::service_of(w))
            {
                self.queue.mark(Task::Service(service));
            }
        }
    }

    fn mark_workloads_behind(&mut self, service: &Id) {
        for workload in self.world.workloads_behind(service) {
            self.queue.mark(Task::Workload(Id::of(&**workload)));
        }
    }
}

fn is_ready(workload: &api::Workload) -> bool {
    let conditions = workload.status.as_ref().map(|s| s.conditions.as_slice());
    Condition::find(conditions.unwrap_or_default(), condition_type::READY)
        .is_some_and(Condition::is_true)
}

/// All of a workload that where it goes depends on.
fn place(workload: Option<&api::Workload>) -> Option<impl PartialEq> {
    let workload = workload?;
    let meta = &workload.metadata;
    let conditions = workload.status.as_ref().map(|s| s.conditions.as_slice());
    let ready = Condition::find(conditions.unwrap_or_default(), condition_type::READY);
    Some((
        meta.uid.clone(),
        meta.generation,
        meta.labels.clone(),
        meta.deletion_timestamp.is_some(),
        World::host_of(workload).map(str::to_owned),
        // A lost host's workloads are moved once they say that it is lost.
        ready.is_some_and(|ready| ready.reason == "HostLost"),
    ))
}
