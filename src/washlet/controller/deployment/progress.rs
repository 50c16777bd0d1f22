//! Whether a rollout comes forward: the condition `Progressing`, and since when. Pure.
//!
//! The reasons are those of Kubernetes' own Deployment.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{super::owned, resolve::Unresolved};
use crate::washlet::api::{Condition, WorkloadDeploymentStatus, condition_type::PROGRESSING};

/// Seconds until a rollout without progress is reported, by default.
pub(super) const DEADLINE: i32 = 600;

pub(super) const CREATED: &str = "NewReplicaSetCreated";
pub(super) const FOUND: &str = "FoundNewReplicaSet";
pub(super) const UPDATED: &str = "ReplicaSetUpdated";
pub(super) const AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const PAUSED: &str = "DeploymentPaused";
pub(super) const EXCEEDED: &str = "ProgressDeadlineExceeded";

/// What it is judged by.
pub(super) struct Facts<'a> {
    /// The status as it is.
    pub is: &'a WorkloadDeploymentStatus,
    /// Its counts, and the newest set, as they will be.
    pub becomes: &'a WorkloadDeploymentStatus,
    pub unresolved: Option<&'a Unresolved>,
    pub paused: bool,
    pub complete: bool,
    /// The set that this decision creates.
    pub creates: Option<&'a str>,
    /// `spec.progressDeadlineSeconds`.
    pub deadline: i32,
    pub now: Timestamp,
}

/// How a rollout comes forward.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    pub status: &'static str,
    pub reason: &'static str,
    /// When it last did; none if there is nothing to wait for.
    pub since: Option<Time>,
    /// When it will have done so for too long.
    pub again: Option<Duration>,
}

pub(super) fn judge(facts: &Facts<'_>) -> Progress {
    let settled = |status, reason| Progress {
        status,
        reason,
        since: None,
        again: None,
    };
    if let Some(unresolved) = facts.unresolved {
        return settled("False", unresolved.reason);
    }
    if facts.paused {
        return settled("Unknown", PAUSED);
    }
    let former =
        Condition::find(&facts.is.conditions, PROGRESSING).map_or("", |c| c.reason.as_str());
    let same_set = facts.is.current_replica_set == facts.becomes.current_replica_set;
    // Once a rollout is done, a Workload that fails later is no rollout that fails.
    let was_done = same_set
        && former == AVAILABLE
        && facts.becomes.current_replicas == facts.becomes.updated_replicas;
    if facts.complete || was_done {
        return settled("True", AVAILABLE);
    }
    let since = facts.is.last_progress_time.clone().filter(|_| same_set);
    let moved = has_moved(facts);
    let appeared = !same_set && facts.becomes.current_replica_set.is_some();
    let known = [CREATED, FOUND, UPDATED]
        .into_iter()
        .find(|reason| *reason == former);
    let reason = match known {
        _ if facts.creates.is_some() => CREATED,
        Some(CREATED) if appeared => CREATED,
        _ if appeared => FOUND,
        Some(known) if !moved => known,
        _ => UPDATED,
    };
    // A set that cannot be created is no progress, however often it is tried.
    let since = since
        .filter(|_| !moved)
        .unwrap_or_else(|| owned::seconds(facts.now));
    let ends = owned::after(since.0, facts.deadline);
    let is_late = ends <= facts.now;
    Progress {
        status: if is_late { "False" } else { "True" },
        reason: if is_late { EXCEEDED } else { reason },
        since: Some(since),
        again: (!is_late).then(|| owned::until(ends, facts.now)),
    }
}

/// Whether more Workloads are new, Ready or available than before, or fewer are left of former revisions.
fn has_moved(facts: &Facts<'_>) -> bool {
    let (is, becomes) = (facts.is, facts.becomes);
    let grown = |before: Option<i32>, after: Option<i32>| after.unwrap_or(0) > before.unwrap_or(0);
    let former = |status: &WorkloadDeploymentStatus| {
        status.current_replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
    };
    grown(is.updated_replicas, becomes.updated_replicas)
        || grown(is.ready_replicas, becomes.ready_replicas)
        || grown(is.available_replicas, becomes.available_replicas)
        || former(becomes) < former(is)
}
