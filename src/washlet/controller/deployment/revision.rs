//! The sets of a deployment, and which of them is of its present template. Pure.

use std::collections::HashMap;

use super::{
    super::owned::{self, Bond, Count},
    Input,
    rollout::Size,
};
use crate::washlet::api::{
    Workload, WorkloadReplicaSet, WorkloadTemplate, annotation, label, label_value,
};

/// One set.
pub(super) struct Revision<'a> {
    pub set: &'a WorkloadReplicaSet,
    /// Its Workloads, those that are being deleted too.
    pub workloads: Vec<&'a Workload>,
    pub count: Count,
    /// `spec.replicas`.
    pub size: i32,
    /// The number of the revision; 0 if it has none yet.
    pub number: u64,
    /// It is not controlled by the deployment yet.
    pub adopt: bool,
}

/// All sets that are there to stay, the oldest first.
pub(super) struct Revisions<'a> {
    pub all: Vec<Revision<'a>>,
    /// Which of them is of the present template.
    pub new: Option<usize>,
    /// The set of the present template is being deleted.
    pub new_is_ending: bool,
    /// Sets that the deployment controls and that it selects no more.
    pub released: Vec<&'a WorkloadReplicaSet>,
}

impl Revision<'_> {
    /// Whether nothing is left of it but the template.
    pub fn is_empty(&self) -> bool {
        self.size == 0 && self.workloads.is_empty()
    }

    pub fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }
}

impl<'a> Revisions<'a> {
    pub fn new(input: &Input<'a>, template: Option<&WorkloadTemplate>) -> Self {
        let meta = &input.deployment.metadata;
        let value = label_value(meta.name.as_deref().unwrap_or_default());
        let min_ready = input.deployment.spec.min_ready_seconds.unwrap_or(0);
        let mut members = by_owner(&input.workloads);
        let (mut all, mut released, mut new_is_ending) = (Vec::new(), Vec::new(), false);
        for &set in &input.sets {
            let bond = owned::bond(meta, (label::DEPLOYMENT, &value), &set.metadata);
            match bond {
                Bond::None => continue,
                Bond::Releases => {
                    released.push(set);
                    continue;
                }
                Bond::Owns | Bond::Adopts => {}
            }
            if owned::is_deleted(&set.metadata) {
                new_is_ending |= template == Some(&set.spec.template);
                continue;
            }
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let workloads = members.remove(uid).unwrap_or_default();
            let (count, _) = owned::count(workloads.iter().copied(), min_ready, input.now);
            all.push(Revision {
                set,
                workloads,
                count,
                size: set.spec.replicas.unwrap_or(1).max(0),
                number: number(set),
                adopt: bond == Bond::Adopts,
            });
        }
        all.sort_by_cached_key(|revision| {
            let meta = &revision.set.metadata;
            (
                meta.creation_timestamp.clone().map(|time| time.0),
                meta.name.clone(),
            )
        });
        // Of two the older one, as in Kubernetes.
        let new = all
            .iter()
            .position(|revision| template == Some(&revision.set.spec.template));
        Self {
            all,
            new,
            new_is_ending,
            released,
        }
    }

    pub fn newest(&self) -> Option<&Revision<'a>> {
        self.all.get(self.new?)
    }

    pub fn former(&self) -> impl Iterator<Item = &Revision<'a>> {
        let each = self.all.iter().enumerate();
        each.filter(|(index, _)| self.new != Some(*index))
            .map(|(_, revision)| revision)
    }

    /// The number that the newest revision shall have: higher than all others. It may be an old revision's set that became the
    /// newest one again.
    pub fn number(&self) -> Option<u64> {
        Some(self.newest()?.number.max(self.next_number()))
    }

    /// The number of a revision that follows all former ones.
    pub fn next_number(&self) -> u64 {
        self.former()
            .map(|revision| revision.number)
            .max()
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// Workloads of all sets.
    pub fn total(&self) -> Count {
        self.all
            .iter()
            .fold(Count::default(), |sum, revision| Count {
                live: sum.live + revision.count.live,
                ready: sum.ready + revision.count.ready,
                available: sum.available + revision.count.available,
            })
    }

    /// Whether all Workloads are of the newest revision and available.
    pub fn is_complete(&self, wanted: i32) -> bool {
        let (total, newest) = (self.total(), self.newest());
        newest.is_some_and(|newest| newest.count.live == wanted && newest.count.available == wanted)
            && total.live == wanted
    }

    pub fn sizes(&self) -> Vec<Size> {
        self.all
            .iter()
            .map(|revision| Size {
                size: revision.size,
                live: revision.count.live,
                existing: i32::try_from(revision.workloads.len()).unwrap_or(i32::MAX),
                available: revision.count.available,
                desired: note(revision.set, annotation::DESIRED_REPLICAS),
                limit: note(revision.set, annotation::MAX_REPLICAS),
            })
            .collect()
    }
}

/// Workloads by the UID of what controls them.
fn by_owner<'a>(workloads: &[&'a Workload]) -> HashMap<&'a str, Vec<&'a Workload>> {
    let mut found: HashMap<&str, Vec<&Workload>> = HashMap::new();
    for &workload in workloads {
        let mut owners = workload.metadata.owner_references.iter().flatten();
        if let Some(owner) = owners.find(|owner| owner.controller == Some(true)) {
            found.entry(&owner.uid).or_default().push(workload);
        }
    }
    found
}

fn number(set: &WorkloadReplicaSet) -> u64 {
    note(set, annotation::REVISION).unwrap_or(0)
}

fn note<T: std::str::FromStr>(set: &WorkloadReplicaSet, name: &str) -> Option<T> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}
