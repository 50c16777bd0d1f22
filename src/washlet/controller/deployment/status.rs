//! What is said of a deployment. Pure.

use std::time::Duration;

use super::{
    super::{
        owned::{self, Count, condition},
        write::{Kind, Write},
    },
    Input, is_paused,
    progress::{self, Progress},
    resolve::Unresolved,
    revision::{Revision, Revisions},
    rollout::Limits,
    wanted,
};
use crate::washlet::api::{
    Condition, ObjectRef, ReplicaCounts, WorkloadDeploymentStatus,
    condition_type::{AVAILABLE, PROGRESSING, READY, RECONCILING, REPLICA_FAILURE, STALLED},
    label, label_value,
};

/// The conditions that are ours; others keep theirs.
const OWNED: [&str; 6] = [
    AVAILABLE,
    PROGRESSING,
    READY,
    RECONCILING,
    STALLED,
    REPLICA_FAILURE,
];

/// All that the status is made of.
pub(super) struct Seen<'a, 'i> {
    pub input: &'a Input<'i>,
    pub revisions: &'a Revisions<'i>,
    pub limits: &'a Limits,
    /// Why there is no newest revision.
    pub unresolved: Option<&'a Unresolved>,
    /// The set that this decision creates.
    pub creates: Option<&'a str>,
    /// How many names for it were taken.
    pub collisions: Option<i32>,
}

/// Writes the status, unless it says so already; and tells when it changes by the passing of time alone.
pub(super) fn write(seen: &Seen<'_, '_>) -> (Option<Write>, Option<Duration>) {
    let deployment = seen.input.deployment;
    let none = WorkloadDeploymentStatus::default();
    let is = deployment.status.as_ref().unwrap_or(&none);
    let mut becomes = counts(seen, is);
    let complete = seen.unresolved.is_none() && seen.revisions.is_complete(wanted(deployment));
    let progress = progress::judge(&progress::Facts {
        is,
        becomes: &becomes,
        unresolved: seen.unresolved,
        paused: is_paused(deployment),
        complete,
        creates: seen.creates,
        deadline: deployment
            .spec
            .progress_deadline_seconds
            .unwrap_or(progress::DEADLINE),
        now: seen.input.now,
    });
    let generation = deployment.metadata.generation;
    let conditions = conditions(seen, &progress, complete);
    becomes.conditions = owned::timed(conditions, &is.conditions, generation, seen.input.now);
    becomes.last_progress_time.clone_from(&progress.since);
    let differs = owned::conditions_differ(&is.conditions, &becomes.conditions, &OWNED)
        || WorkloadDeploymentStatus {
            conditions: Vec::new(),
            ..is.clone()
        } != WorkloadDeploymentStatus {
            conditions: Vec::new(),
            ..becomes.clone()
        };
    let write = differs.then(|| owned::status(Kind::Deployment, deployment, &becomes));
    (write, owned::sooner(progress.again, next_available(seen)))
}

/// When the next Workload becomes available by the passing of time alone.
fn next_available(seen: &Seen<'_, '_>) -> Option<Duration> {
    let min_ready = seen.input.deployment.spec.min_ready_seconds.unwrap_or(0);
    let workloads = seen
        .revisions
        .all
        .iter()
        .flat_map(|revision| revision.workloads.iter().copied());
    owned::count(workloads, min_ready, seen.input.now).1
}

/// Everything but the conditions.
fn counts(seen: &Seen<'_, '_>, is: &WorkloadDeploymentStatus) -> WorkloadDeploymentStatus {
    let deployment = seen.input.deployment;
    let (total, expected) = (seen.revisions.total(), wanted(deployment));
    let newest = seen.revisions.newest();
    let unavailable = (expected - total.available).max(0);
    let collisions = seen.collisions.filter(|n| *n > 0).or(is.collision_count);
    let name = label_value(deployment.metadata.name.as_deref().unwrap_or_default());
    WorkloadDeploymentStatus {
        observed_generation: deployment.metadata.generation,
        conditions: Vec::new(),
        current_replica_set: newest.map(reference),
        previous_replica_set: serving(seen.revisions)
            .first()
            .map(|revision| reference(revision)),
        replicas: Some(ReplicaCounts {
            expected,
            current: total.live,
            ready: total.ready,
            unavailable,
        }),
        current_replicas: Some(total.live),
        updated_replicas: Some(newest.map_or(0, |newest| newest.count.live)),
        ready_replicas: Some(total.ready),
        available_replicas: Some(total.available),
        unavailable_replicas: Some(unavailable),
        selector: Some(format!("{}={name}", label::DEPLOYMENT)),
        collision_count: collisions,
        last_progress_time: None,
    }
}

fn reference(revision: &Revision<'_>) -> ObjectRef {
    ObjectRef {
        name: revision.name().to_owned(),
    }
}

/// Former revisions that still have Workloads, the newest first.
fn serving<'a, 'i>(revisions: &'a Revisions<'i>) -> Vec<&'a Revision<'i>> {
    let mut serving: Vec<_> = revisions
        .former()
        .filter(|revision| revision.count.live > 0)
        .collect();
    serving.sort_by_key(|revision| std::cmp::Reverse(revision.number));
    serving
}

fn conditions(seen: &Seen<'_, '_>, progress: &Progress, complete: bool) -> Vec<Condition> {
    let (total, expected) = (seen.revisions.total(), wanted(seen.input.deployment));
    let message = explain(seen, total, expected);
    let reached = format!("{} of {expected} Workloads are available.", total.available);
    let available = if total.available >= seen.limits.fewest() {
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", reached)
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            message.clone(),
        )
    };
    let stalled = progress.status == "False";
    // A rollout that was done is not under way again when one of its Workloads fails.
    let why = match progress.reason {
        progress::AVAILABLE => "WorkloadsNotReady",
        reason => reason,
    };
    let ready = if complete {
        condition(READY, "True", "Available", message.clone())
    } else {
        condition(READY, "False", why, message.clone())
    };
    let mut conditions = vec![
        available,
        condition(
            PROGRESSING,
            progress.status,
            progress.reason,
            message.clone(),
        ),
        ready,
    ];
    if stalled {
        conditions.push(condition(STALLED, "True", progress.reason, message));
    } else if !complete && progress.reason != progress::PAUSED {
        conditions.push(condition(RECONCILING, "True", why, message));
    }
    conditions.extend(failure(seen));
    conditions
}

/// How it stands, in sentences: the newest revision, the former ones that still serve, and what there is to wait for.
fn explain(seen: &Seen<'_, '_>, total: Count, expected: i32) -> String {
    let mut said = Vec::new();
    if let Some(unresolved) = seen.unresolved {
        said.push(format!(
            "No new revision can be made: {}.",
            unresolved.message.trim_end_matches('.')
        ));
    }
    match (seen.revisions.newest(), seen.creates) {
        (Some(newest), _) => said.push(of(newest, expected)),
        (None, Some(name)) => said.push(format!("WorkloadReplicaSet {name} is being created.")),
        (None, None) if seen.unresolved.is_none() && total.live > 0 && seen.limits.recreate => {
            said.push(format!(
                "{} Workloads of former revisions end first.",
                total.live
            ));
        }
        (None, None) => {}
    }
    for former in serving(seen.revisions) {
        said.push(format!(
            "{} still has {} Workloads, {} of them available.",
            called(former),
            former.count.live,
            former.count.available
        ));
    }
    if is_paused(seen.input.deployment) {
        said.push("The deployment is paused: changes of the template wait.".to_owned());
    }
    if said.is_empty() {
        said.push("There is nothing yet.".to_owned());
    }
    said.join(" ")
}

fn of(newest: &Revision<'_>, expected: i32) -> String {
    let (called, count) = (called(newest), newest.count);
    match owned::why_not_ready(newest.workloads.iter().copied()) {
        Some(why) => {
            let why = why.trim_end_matches('.');
            format!(
                "{called} has {} of {expected} Workloads available; {why}.",
                count.available
            )
        }
        None => format!(
            "{called} has {} of {expected} Workloads available.",
            count.available
        ),
    }
}

fn called(revision: &Revision<'_>) -> String {
    format!("Revision {} ({})", revision.number, revision.name())
}

/// What keeps Workloads or sets from being written, here or in a set.
fn failure(seen: &Seen<'_, '_>) -> Option<Condition> {
    if let Some(why) = seen.input.refused {
        let message = format!("The API server refuses: {why}");
        return Some(condition(REPLICA_FAILURE, "True", "WriteRefused", message));
    }
    let newest_first = seen
        .revisions
        .newest()
        .into_iter()
        .chain(seen.revisions.former());
    newest_first
        .filter_map(|revision| {
            let conditions = &revision.set.status.as_ref()?.conditions;
            let failure = Condition::find(conditions, REPLICA_FAILURE)?;
            let message = format!("{}: {}", called(revision), failure.message);
            Some(condition(REPLICA_FAILURE, "True", &failure.reason, message))
        })
        .next()
}
