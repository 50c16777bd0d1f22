//! Writing the agent's part of a status by server-side apply.

use kube::Resource as _;
use serde_json::{Value, json};

use crate::washlet::api::{self, Condition, condition_type};

/// Conditions that are absent unless true; they go when they are not applied again.
const ONLY_WHEN_TRUE: [&str; 2] = [condition_type::RECONCILING, condition_type::STALLED];

/// The body of the apply: what the agent owns and nothing else. It carries the `resourceVersion` of the object that the status
/// was made from, so that it cannot land on an object that was deleted and created anew, or given to another node.
#[must_use]
pub fn apply_body(workload: &api::Workload, status: &api::WorkloadStatus) -> Value {
    let meta = &workload.metadata;
    let mut metadata = json!({ "name": meta.name, "namespace": meta.namespace });
    if let (Some(version), Some(fields)) = (&meta.resource_version, metadata.as_object_mut()) {
        fields.insert("resourceVersion".to_owned(), json!(version));
    }
    json!({
        "apiVersion": api::Workload::api_version(&()),
        "kind": api::Workload::kind(&()),
        "metadata": metadata,
        "status": status,
    })
}

/// Whether an apply of `ours` would change what is there now. Parts of other owners do not count.
#[must_use]
pub fn differs(now: Option<&api::WorkloadStatus>, ours: &api::WorkloadStatus) -> bool {
    let Some(now) = now else { return true };
    let condition_differs =
        |ours: &Condition| Condition::find(&now.conditions, &ours.type_) != Some(ours);
    let left_over = |type_: &&str| {
        Condition::find(&now.conditions, type_).is_some()
            && Condition::find(&ours.conditions, type_).is_none()
    };
    // Somebody else's value stands where we have none.
    let set_differs = |ours: &Option<String>, now: &Option<String>| ours.is_some() && ours != now;
    ours.conditions.iter().any(condition_differs)
        || ONLY_WHEN_TRUE.iter().any(left_over)
        || set_differs(&ours.host_id, &now.host_id)
        || set_differs(&ours.workload_id, &now.workload_id)
        || ours.observed_generation != now.observed_generation
        || ours.components.len() != now.components.len()
        // The order of a list with keys is the API server's affair.
        || ours.components.iter().any(|c| !now.components.contains(c))
        || ours.timings != now.timings
}
