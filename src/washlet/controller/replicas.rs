//! Replica sets and deployments: what each of them comes to.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::api,
    control::Leader,
    deployment, replica_set,
    task::Task,
    world::{Id, World},
    write::Write,
};

impl Leader<'_> {
    /// The Workloads of a replica set.
    pub(super) fn replica_set(&mut self, id: &Id, now: Instant) -> Vec<Write> {
        let (world, task) = (&self.world, Task::ReplicaSet(id.clone()));
        let Some(set) = world.sets.get(id) else {
            self.refusals.remove(&task);
            return Vec::new();
        };
        let controlled = world.workloads_of(set.metadata.uid.as_deref().unwrap_or_default());
        let decision = replica_set::decide(&replica_set::Input {
            set,
            workloads: controlled
                .chain(world.orphans_of_set(id))
                .map(|workload| &**workload)
                .collect(),
            taken: &|name| world.workloads.get(&Id::new(&id.namespace, name)).is_some(),
            refused: self.refusals.get(&task).map(String::as_str),
            now: Timestamp::now(),
        });
        if let Some(again) = decision.again {
            self.queue.mark_at(task, now + again);
        }
        decision.writes
    }

    /// The replica sets of a deployment.
    pub(super) fn deployment(&mut self, id: &Id, now: Instant) -> Vec<Write> {
        let (world, task) = (&self.world, Task::Deployment(id.clone()));
        let Some(deployment) = world.deployments.get(id) else {
            self.refusals.remove(&task);
            return Vec::new();
        };
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let controlled = world.sets_of(uid).chain(world.orphans_of_deployment(id));
        let sets: Vec<&api::WorkloadReplicaSet> = controlled.map(|set| &**set).collect();
        let decision = deployment::decide(&deployment::Input {
            deployment,
            workloads: sets
                .iter()
                .flat_map(|set| workloads_of(world, set))
                .collect(),
            sets,
            artifacts: &|name| {
                world
                    .artifacts
                    .get(&Id::new(&id.namespace, name))
                    .map(|a| &**a)
            },
            taken: &|name| world.sets.get(&Id::new(&id.namespace, name)).is_some(),
            refused: self.refusals.get(&task).map(String::as_str),
            now: Timestamp::now(),
        });
        if let Some(again) = decision.again {
            self.queue.mark_at(task, now + again);
        }
        decision.writes
    }
}

fn workloads_of<'a>(world: &'a World, set: &api::WorkloadReplicaSet) -> Vec<&'a api::Workload> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    world
        .workloads_of(uid)
        .map(|workload| &**workload)
        .collect()
}
