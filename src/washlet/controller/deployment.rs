//! Deployments: which replica sets there are, and how many Workloads each of them has. Pure.
//!
//! As Kubernetes' own Deployment does it. Every template is a revision with a set of its own; the set of the newest one grows
//! while the others shrink ([`rollout`]). Sets without Workloads are kept to go back to. Going back is a change of the template
//! like any other, made by the user: a controller that changed the spec itself would fight whoever else keeps it, such as a
//! GitOps tool, which is why Kubernetes took that out of its own Deployments.

mod progress;
mod resolve;
mod revision;
mod rollout;
mod status;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::Resource as _;
use serde_json::{Map, Value, json};

use super::{
    owned::{self, Decision},
    template,
    write::{Action, Key, Kind, Write},
};
use crate::washlet::api::{
    Artifact, Workload, WorkloadDeployment, WorkloadReplicaSet, WorkloadTemplate, annotation,
    label, label_value,
};

use resolve::Unresolved;
use revision::{Revision, Revisions};
use rollout::{Limits, Plan};

/// Former revisions that are kept by default.
const HISTORY: i32 = 10;
/// Names that are tried for a new set before the decision is left to the next time.
const MAX_COLLISIONS: i32 = 100;
/// Annotations with this prefix are a deployment's own, and not its sets'.
const OWN: &str = "washlet.dev/";
/// What `kubectl apply` remembers of a deployment is not about its sets.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is known.
pub(super) struct Input<'a> {
    pub deployment: &'a WorkloadDeployment,
    /// The sets of its namespace that it controls, and those that nobody controls; others do no harm.
    pub sets: Vec<&'a WorkloadReplicaSet>,
    /// The Workloads of those sets; others do no harm.
    pub workloads: Vec<&'a Workload>,
    /// The Artifacts of its namespace, by their names.
    pub artifacts: &'a dyn Fn(&str) -> Option<&'a Artifact>,
    /// Whether its namespace has a set of this name.
    pub taken: &'a dyn Fn(&str) -> bool,
    /// What the API server said when it last refused a write on behalf of the deployment; none since one succeeded.
    pub refused: Option<&'a str>,
    pub now: Timestamp,
}

/// Decides.
///
/// # Guarantees
/// As long as the state that it is given does not change it decides the same, down to the name of a new set. No two of the
/// writes are about one object.
pub(super) fn decide(input: &Input<'_>) -> Decision {
    let meta = &input.deployment.metadata;
    let resolved = resolve::template(input.deployment, input.artifacts);
    let revisions = Revisions::new(input, resolved.as_ref().ok());
    let limits = Limits::of(&input.deployment.spec);
    let mut writes = Vec::new();
    let (mut created, mut again) = (None, None);
    if !owned::is_deleted(meta) {
        let plan = plan(input, &resolved, &revisions, &limits);
        again = plan.again;
        writes.extend(revisions.released.iter().map(|set| release(input, set)));
        writes.extend(changes(input, &revisions, &limits, &plan));
        if let (Some(replicas), Ok(template)) = (plan.create, &resolved) {
            created = create(input, &revisions, &limits, template, replicas);
        }
        writes.extend(forget(input, &revisions));
    }
    if let Some(merge) = number(input, &revisions) {
        // The status follows when this is done: two writes to one object would be in each other's way.
        writes.push(merge);
    } else {
        let seen = status::Seen {
            input,
            revisions: &revisions,
            limits: &limits,
            unresolved: resolved.as_ref().err(),
            creates: created.as_ref().map(|new| new.write.key.name.as_str()),
            collisions: created.as_ref().map(|new| new.collisions),
        };
        let (status, soon) = status::write(&seen);
        writes.extend(status);
        again = owned::sooner(again, soon);
    }
    writes.extend(created.map(|new| new.write));
    Decision { writes, again }
}

/// How many Workloads the deployment shall have.
fn wanted(deployment: &WorkloadDeployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1).max(0)
}

fn is_paused(deployment: &WorkloadDeployment) -> bool {
    deployment.spec.paused == Some(true)
}

fn plan(
    input: &Input<'_>,
    resolved: &Result<WorkloadTemplate, Unresolved>,
    revisions: &Revisions<'_>,
    limits: &Limits,
) -> Plan {
    let sizes = revisions.sizes();
    let held = is_paused(input.deployment) || resolved.is_err();
    if held || rollout::is_scaled(&sizes, limits) {
        rollout::scale(&sizes, revisions.new, limits)
    } else if revisions.new.is_none() && revisions.new_is_ending {
        // Its set is being deleted; a new one can have its name when it is gone.
        Plan::keep(&sizes)
    } else {
        rollout::roll(&sizes, revisions.new, limits)
    }
}

// === Sets that there are ===

/// Adoption, size, annotations: at most one write for each set.
fn changes(
    input: &Input<'_>,
    revisions: &Revisions<'_>,
    limits: &Limits,
    plan: &Plan,
) -> Vec<Write> {
    let number = revisions.number();
    let each = revisions.all.iter().zip(&plan.sizes).enumerate();
    each.filter_map(|(index, (revision, size))| {
        let is_new = revisions.new == Some(index);
        change(input, revision, *size, limits, number.filter(|_| is_new))
    })
    .collect()
}

fn change(
    input: &Input<'_>,
    revision: &Revision<'_>,
    size: i32,
    limits: &Limits,
    number: Option<u64>,
) -> Option<Write> {
    let set = revision.set;
    let (mut metadata, mut spec, mut notes) = (Map::new(), Map::new(), Map::new());
    if revision.adopt {
        let owners = owned::with_owner(&set.metadata, owned::reference(input.deployment));
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    if size != revision.size {
        spec.insert("replicas".to_owned(), json!(size));
    }
    if size > 0 {
        if set.spec.min_ready_seconds != input.deployment.spec.min_ready_seconds {
            spec.insert(
                "minReadySeconds".to_owned(),
                json!(input.deployment.spec.min_ready_seconds),
            );
        }
        notes = differing(set, &limits.annotations());
    }
    if let Some(number) = number {
        notes.extend(differing(
            set,
            &[(annotation::REVISION, number.to_string())],
        ));
    }
    if !notes.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(notes));
    }
    if metadata.is_empty() && spec.is_empty() {
        return None;
    }
    let rest = if spec.is_empty() {
        json!({})
    } else {
        json!({ "spec": spec })
    };
    Some(owned::merge(
        Kind::ReplicaSet,
        &set.metadata,
        Value::Object(metadata),
        rest,
    ))
}

/// Those annotations that a set has not yet.
fn differing(set: &WorkloadReplicaSet, wanted: &[(&str, String)]) -> Map<String, Value> {
    let has = |name: &str| set.metadata.annotations.as_ref().and_then(|a| a.get(name));
    let missing = wanted
        .iter()
        .filter(|(name, value)| has(name) != Some(value));
    missing
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect()
}

fn release(input: &Input<'_>, set: &WorkloadReplicaSet) -> Write {
    let owners = owned::without_owner(&set.metadata, &input.deployment.metadata);
    let metadata = json!({ "ownerReferences": owners });
    owned::merge(Kind::ReplicaSet, &set.metadata, metadata, json!({}))
}

/// Deletes the oldest revisions beyond the limit, while no rollout is under way that could need them.
fn forget(input: &Input<'_>, revisions: &Revisions<'_>) -> Vec<Write> {
    let spec = &input.deployment.spec;
    if !is_paused(input.deployment) && !revisions.is_complete(wanted(input.deployment)) {
        return Vec::new();
    }
    let mut empty: Vec<&Revision<'_>> = revisions
        .former()
        .filter(|r| r.is_empty() && !r.adopt)
        .collect();
    empty.sort_by_key(|revision| revision.number);
    let limit = usize::try_from(spec.revision_history_limit.unwrap_or(HISTORY)).unwrap_or_default();
    let surplus = empty.len().saturating_sub(limit);
    let surplus = empty.into_iter().take(surplus);
    surplus
        .map(|revision| owned::delete(Kind::ReplicaSet, &revision.set.metadata))
        .collect()
}

/// Gives the deployment the number of its newest revision.
fn number(input: &Input<'_>, revisions: &Revisions<'_>) -> Option<Write> {
    let meta = &input.deployment.metadata;
    let number = revisions.number().filter(|_| !owned::is_deleted(meta))?;
    let has = meta
        .annotations
        .as_ref()
        .and_then(|a| a.get(annotation::REVISION));
    if has == Some(&number.to_string()) {
        return None;
    }
    let metadata = json!({ "annotations": { annotation::REVISION: number.to_string() } });
    Some(owned::merge(Kind::Deployment, meta, metadata, json!({})))
}

// === A new set ===

struct New {
    write: Write,
    /// How many names were taken.
    collisions: i32,
}

fn create(
    input: &Input<'_>,
    revisions: &Revisions<'_>,
    limits: &Limits,
    template: &WorkloadTemplate,
    replicas: i32,
) -> Option<New> {
    let deployment = input.deployment;
    let meta = &deployment.metadata;
    let base = meta.name.as_deref().unwrap_or_default();
    let first = deployment
        .status
        .as_ref()
        .and_then(|s| s.collision_count)
        .unwrap_or(0)
        .max(0);
    let tries = first..first.saturating_add(MAX_COLLISIONS);
    let mut names = tries.map(|collisions| {
        let hash = template::hash_after(template, collisions);
        (collisions, template::name(base, &hash), hash)
    });
    let (collisions, name, hash) = names.find(|(_, name, _)| !(input.taken)(name))?;
    let namespace = meta.namespace.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(label::DEPLOYMENT.to_owned(), label_value(base));
    labels.insert(label::TEMPLATE_HASH.to_owned(), hash);
    let mut spec = json!({ "replicas": replicas, "template": template });
    if let (Some(seconds), Some(fields)) = (deployment.spec.min_ready_seconds, spec.as_object_mut())
    {
        fields.insert("minReadySeconds".to_owned(), json!(seconds));
    }
    let body = json!({
        "apiVersion": WorkloadReplicaSet::api_version(&()),
        "kind": WorkloadReplicaSet::kind(&()),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": set_annotations(deployment, limits, revisions.next_number()),
            "ownerReferences": [owned::reference(deployment)],
        },
        "spec": spec,
    });
    let write = Write {
        key: Key {
            kind: Kind::ReplicaSet,
            namespace,
            name,
        },
        action: Action::Create(body),
    };
    Some(New { write, collisions })
}

/// Those of the deployment, as in wasmCloud, and those by which sets are told apart.
fn set_annotations(
    deployment: &WorkloadDeployment,
    limits: &Limits,
    number: u64,
) -> BTreeMap<String, String> {
    let all = deployment.metadata.annotations.iter().flatten();
    let theirs = all.filter(|(name, _)| !name.starts_with(OWN) && *name != LAST_APPLIED);
    let mut annotations: BTreeMap<String, String> =
        theirs.map(|(n, v)| (n.clone(), v.clone())).collect();
    annotations.insert(annotation::REVISION.to_owned(), number.to_string());
    for (name, value) in limits.annotations() {
        annotations.insert(name.to_owned(), value);
    }
    annotations
}
