//! Replica sets: which Workloads are created, deleted, adopted and let go. Pure.
//!
//! As Kubernetes' own ReplicaSet does it, with one difference, which is wasmCloud's: when the template of a set changes, its
//! Workloads are replaced.

mod rank;
mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::Resource as _;
use serde_json::{Value, json};

use super::{
    owned::{self, Bond, Decision},
    template,
    write::{Action, Key, Kind, Write},
};
use crate::washlet::api::{Workload, WorkloadReplicaSet, annotation, label, label_value};

/// Most Workloads that one decision creates; the next one follows when they are there.
const MAX_CREATES: usize = 500;

/// What is known.
pub(super) struct Input<'a> {
    pub set: &'a WorkloadReplicaSet,
    /// The Workloads of its namespace that it controls, and those that nobody controls; others do no harm.
    pub workloads: Vec<&'a Workload>,
    /// Whether its namespace has a Workload of this name.
    pub taken: &'a dyn Fn(&str) -> bool,
    /// What the API server said when it last refused a write on behalf of the set; none since one succeeded.
    pub refused: Option<&'a str>,
    pub now: Timestamp,
}

/// The Workloads of a set, as far as they are there to stay.
struct Members<'a> {
    /// Of the current template.
    current: Vec<&'a Workload>,
    /// Of a former one.
    former: Vec<&'a Workload>,
}

/// Decides.
///
/// # Guarantees
/// As long as the state that it is given does not change it decides the same, down to the names of new Workloads: a decision
/// that is carried out twice creates each Workload once.
pub(super) fn decide(input: &Input<'_>) -> Decision {
    let meta = &input.set.metadata;
    let selector = label_value(meta.name.as_deref().unwrap_or_default());
    let bond = |workload: &Workload| {
        owned::bond(meta, (label::REPLICA_SET, &selector), &workload.metadata)
    };
    let of = |wanted: Bond| {
        input
            .workloads
            .iter()
            .copied()
            .filter(move |workload| bond(workload) == wanted)
    };
    let hash = template::hash(&input.set.spec.template);
    let (current, former) = of(Bond::Owns)
        .chain(of(Bond::Adopts))
        .filter(|workload| !owned::is_deleted(&workload.metadata))
        .partition(|workload| is_current(input.set, &hash, workload));
    let members = Members { current, former };

    let mut writes = Vec::new();
    // A set that is being deleted leaves its Workloads to the garbage collector, which may be told to orphan them.
    if !owned::is_deleted(meta) {
        writes.extend(of(Bond::Adopts).map(|workload| adopt(input.set, workload)));
        writes.extend(of(Bond::Releases).map(|workload| release(input.set, workload)));
        writes.extend(scale(input, &members, &hash));
    }
    let (status, again) = status::write(input, &members, &selector);
    writes.extend(status);
    Decision { writes, again }
}

/// How many Workloads a set shall have.
pub(super) fn wanted(set: &WorkloadReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

fn min_ready(set: &WorkloadReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

/// Whether a Workload is of the set's present template. One that does not say what it is of counts as such, as in wasmCloud;
/// and one that is of another hash, but the same, would be replaced for nothing.
fn is_current(set: &WorkloadReplicaSet, hash: &str, workload: &Workload) -> bool {
    let meta = &workload.metadata;
    let template = &set.spec.template;
    let said = meta
        .annotations
        .as_ref()
        .and_then(|a| a.get(annotation::TEMPLATE));
    let has = |all: Option<&std::collections::BTreeMap<String, String>>,
               name: &String,
               value: &String| { all.and_then(|all| all.get(name)) == Some(value) };
    let is_same = || {
        workload.spec == template.spec
            && template
                .labels
                .iter()
                .all(|(n, v)| has(meta.labels.as_ref(), n, v))
            && template
                .annotations
                .iter()
                .all(|(n, v)| has(meta.annotations.as_ref(), n, v))
    };
    said.is_none_or(|said| said == hash) || is_same()
}

// === Which ones ===

fn scale(input: &Input<'_>, members: &Members<'_>, hash: &str) -> Vec<Write> {
    let wanted = usize::try_from(wanted(input.set)).unwrap_or_default();
    let (count, _) = owned::count(
        members.current.iter().copied(),
        min_ready(input.set),
        input.now,
    );
    // The former ones serve until the current ones do.
    let kept = wanted.saturating_sub(usize::try_from(count.available).unwrap_or_default());
    let mut writes = delete_down_to(kept, &members.former);
    if members.current.len() < wanted {
        let missing = wanted - members.current.len();
        // After a refusal one is enough to see whether the next is refused too.
        let most = if input.refused.is_some() {
            1
        } else {
            MAX_CREATES
        };
        writes.extend(create(input, hash, missing.min(most)));
    } else {
        writes.extend(delete_down_to(wanted, &members.current));
    }
    writes
}

fn delete_down_to(kept: usize, workloads: &[&Workload]) -> Vec<Write> {
    let doomed = workloads.len().saturating_sub(kept);
    let first = rank::first_to_go(workloads).into_iter().take(doomed);
    first
        .map(|workload| owned::delete(Kind::Workload, &workload.metadata))
        .collect()
}

/// Creates `count` Workloads, with names that the set's UID and the lowest ordinals that are free make.
fn create(input: &Input<'_>, hash: &str, count: usize) -> Vec<Write> {
    let meta = &input.set.metadata;
    let (base, uid) = (
        meta.name.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    );
    let known: BTreeSet<&str> = input
        .workloads
        .iter()
        .filter_map(|w| w.metadata.name.as_deref())
        .collect();
    let mut chosen = BTreeSet::new();
    let mut ordinal: u32 = 0;
    while chosen.len() < count {
        let name = template::name(base, &template::letters(&[uid, &ordinal.to_string()], 5));
        if !known.contains(name.as_str()) && !(input.taken)(&name) {
            chosen.insert(name);
        }
        // There are fewer names than ordinals; a set that has used them up waits for one to become free.
        let Some(next) = ordinal.checked_add(1).filter(|next| *next < 10_000_000) else {
            break;
        };
        ordinal = next;
    }
    chosen
        .into_iter()
        .map(|name| new_workload(input.set, hash, name))
        .collect()
}

fn new_workload(set: &WorkloadReplicaSet, hash: &str, name: String) -> Write {
    let meta = &set.metadata;
    let template = &set.spec.template;
    let (mut labels, mut annotations) = (template.labels.clone(), template.annotations.clone());
    // Told to the Workloads, so that they can be found by their deployment, and told apart by its revisions.
    for name in [label::DEPLOYMENT, label::TEMPLATE_HASH] {
        if let Some(value) = meta.labels.as_ref().and_then(|l| l.get(name)) {
            labels.insert(name.to_owned(), value.clone());
        }
    }
    let set_name = meta.name.as_deref().unwrap_or_default();
    labels.insert(label::REPLICA_SET.to_owned(), label_value(set_name));
    annotations.insert(annotation::TEMPLATE.to_owned(), hash.to_owned());
    let namespace = meta.namespace.clone().unwrap_or_default();
    let body: Value = json!({
        "apiVersion": Workload::api_version(&()),
        "kind": Workload::kind(&()),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owned::reference(set)],
        },
        "spec": template.spec,
    });
    Write {
        key: Key {
            kind: Kind::Workload,
            namespace,
            name,
        },
        action: Action::Create(body),
    }
}

// === Whose they are ===

fn adopt(set: &WorkloadReplicaSet, workload: &Workload) -> Write {
    let owners = owned::with_owner(&workload.metadata, owned::reference(set));
    let metadata = json!({ "ownerReferences": owners });
    owned::merge(Kind::Workload, &workload.metadata, metadata, json!({}))
}

fn release(set: &WorkloadReplicaSet, workload: &Workload) -> Write {
    let owners = owned::without_owner(&workload.metadata, &set.metadata);
    let metadata = json!({ "ownerReferences": owners });
    owned::merge(Kind::Workload, &workload.metadata, metadata, json!({}))
}
