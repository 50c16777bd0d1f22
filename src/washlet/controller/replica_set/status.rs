//! What is said of a replica set. Pure.

use std::time::Duration;

use super::{
    super::{
        owned::{self, condition},
        write::{Kind, Write},
    },
    Input, Members, min_ready, wanted,
};
use crate::washlet::api::{
    Condition, ReplicaCounts, WorkloadReplicaSetStatus,
    condition_type::{READY, RECONCILING, REPLICA_FAILURE},
    label,
};

/// The conditions that are ours; others keep theirs.
const OWNED: [&str; 3] = [READY, RECONCILING, REPLICA_FAILURE];

/// Writes the status, unless it says so already; and tells when it changes by the passing of time alone.
pub(super) fn write(
    input: &Input<'_>,
    members: &Members<'_>,
    selector: &str,
) -> (Option<Write>, Option<Duration>) {
    let none = WorkloadReplicaSetStatus::default();
    let is = input.set.status.as_ref().unwrap_or(&none);
    let (status, again) = status(input, members, selector, &is.conditions);
    let differs = owned::conditions_differ(&is.conditions, &status.conditions, &OWNED)
        || WorkloadReplicaSetStatus {
            conditions: Vec::new(),
            ..is.clone()
        } != WorkloadReplicaSetStatus {
            conditions: Vec::new(),
            ..status.clone()
        };
    let write = differs.then(|| owned::status(Kind::ReplicaSet, input.set, &status));
    (write, again)
}

fn status(
    input: &Input<'_>,
    members: &Members<'_>,
    selector: &str,
    former: &[Condition],
) -> (WorkloadReplicaSetStatus, Option<Duration>) {
    let meta = &input.set.metadata;
    let expected = wanted(input.set);
    let (count, again) = owned::count(
        members.current.iter().copied(),
        min_ready(input.set),
        input.now,
    );
    let (others, _) = owned::count(members.former.iter().copied(), 0, input.now);
    let mut conditions = vec![ready(input, members, count)];
    if !conditions.iter().any(Condition::is_true) {
        let message = "Workloads are created, deleted or waited for.";
        conditions.push(condition(RECONCILING, "True", "Scaling", message));
    }
    if let Some(why) = input.refused {
        conditions.push(condition(
            REPLICA_FAILURE,
            "True",
            "WriteRefused",
            format!("The API server refuses: {why}"),
        ));
    }
    let status = WorkloadReplicaSetStatus {
        observed_generation: meta.generation,
        conditions: owned::timed(conditions, former, meta.generation, input.now),
        replicas: Some(ReplicaCounts {
            expected,
            current: count.live + others.live,
            ready: count.ready,
            unavailable: (expected - count.available).max(0),
        }),
        current_replicas: Some(count.live + others.live),
        updated_replicas: Some(count.live),
        ready_replicas: Some(count.ready),
        available_replicas: Some(count.available),
        selector: Some(format!("{}={selector}", label::REPLICA_SET)),
    };
    (status, again)
}

fn ready(input: &Input<'_>, members: &Members<'_>, count: owned::Count) -> Condition {
    let expected = wanted(input.set);
    let reached = |what: &str| {
        format!(
            "{} of {expected} Workloads are available{what}.",
            count.available
        )
    };
    if count.live == expected && count.available == expected && members.former.is_empty() {
        return condition(READY, "True", "Available", reached(""));
    }
    let why = owned::why_not_ready(members.current.iter().copied());
    let (reason, message) = if let Some(why) = why {
        ("WorkloadsNotReady", why)
    } else if count.live < expected {
        (
            "Creating",
            reached(&format!("; {} are being created", expected - count.live)),
        )
    } else if count.available < expected {
        let seconds = min_ready(input.set);
        (
            "NotReadyForLong",
            reached(&format!(
                "; the others are Ready for less than {seconds} seconds"
            )),
        )
    } else {
        let spare = count.live - expected + i32::try_from(members.former.len()).unwrap_or(i32::MAX);
        (
            "Deleting",
            reached(&format!("; {spare} more are being deleted")),
        )
    };
    condition(READY, "False", reason, message)
}
