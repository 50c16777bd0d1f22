//! What replica sets and deployments have in common: what belongs to whom, and how Workloads count. Pure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

use super::write::{Action, Key, Kind, Part, Write};
use crate::washlet::api::{Condition, Workload, condition_type};

/// Longest message of a condition; what else is to be said is said by the objects themselves.
const MAX_MESSAGE: usize = 1024;

/// What is decided.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decision {
    /// What is written, in any order.
    pub writes: Vec<Write>,
    /// When to decide again, if nothing else happens before.
    pub again: Option<Duration>,
}

/// How an owner stands to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// It controls it, and its selector matches.
    Owns,
    /// Nobody controls it, and the selector matches: it is taken in.
    Adopts,
    /// It controls it, but the selector matches no more: it is let go.
    Releases,
    /// They have nothing to do with each other.
    None,
}

/// How many Workloads there are. Those that are being deleted do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub live: i32,
    pub ready: i32,
    pub available: i32,
}

// === Belonging ===

/// How `owner`, which selects by one label, stands to an object.
pub(super) fn bond(owner: &ObjectMeta, selector: (&str, &str), object: &ObjectMeta) -> Bond {
    let (label, value) = selector;
    let matches = object
        .labels
        .as_ref()
        .and_then(|l| l.get(label))
        .map(String::as_str)
        == Some(value);
    let mut owners = object.owner_references.iter().flatten();
    match owners.find(|o| o.controller == Some(true)) {
        Some(controller) if Some(&controller.uid) == owner.uid.as_ref() => {
            if matches {
                Bond::Owns
            } else {
                Bond::Releases
            }
        }
        Some(_) => Bond::None,
        None if matches && !is_deleted(object) && !is_deleted(owner) => Bond::Adopts,
        None => Bond::None,
    }
}

/// Whether the object is being deleted.
pub(super) fn is_deleted(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The reference by which `owner` controls an object.
pub(super) fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    let meta = owner.meta();
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "name": meta.name,
        "uid": meta.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The owner references of an object with one more.
pub(super) fn with_owner(object: &ObjectMeta, reference: Value) -> Value {
    let mut owners: Vec<Value> = object
        .owner_references
        .iter()
        .flatten()
        .map(|o| json!(o))
        .collect();
    owners.push(reference);
    json!(owners)
}

/// The owner references of an object without one.
pub(super) fn without_owner(object: &ObjectMeta, owner: &ObjectMeta) -> Value {
    let owners = object.owner_references.iter().flatten();
    json!(
        owners
            .filter(|o| Some(&o.uid) != owner.uid.as_ref())
            .collect::<Vec<_>>()
    )
}

// === Writes ===

pub(super) fn key(kind: Kind, meta: &ObjectMeta) -> Key {
    Key {
        kind,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// A write that merges fields of `metadata`, and other fields, into this state of the object and no other.
pub(super) fn merge(kind: Kind, meta: &ObjectMeta, mut metadata: Value, rest: Value) -> Write {
    if let Some(fields) = metadata.as_object_mut() {
        fields.insert("uid".to_owned(), json!(meta.uid));
        fields.insert("resourceVersion".to_owned(), json!(meta.resource_version));
    }
    let mut patch = rest;
    if let Some(fields) = patch.as_object_mut() {
        fields.insert("metadata".to_owned(), metadata);
    }
    Write {
        key: key(kind, meta),
        action: Action::Merge(patch),
    }
}

pub(super) fn delete(kind: Kind, meta: &ObjectMeta) -> Write {
    Write {
        key: key(kind, meta),
        action: Action::Delete {
            uid: meta.uid.clone().unwrap_or_default(),
        },
    }
}

pub(super) fn status<K: Resource<DynamicType = ()>>(
    kind: Kind,
    object: &K,
    status: &impl Serialize,
) -> Write {
    let meta = object.meta();
    Write {
        key: key(kind, meta),
        action: Action::Status {
            part: Part::Controller,
            body: json!({
                "apiVersion": K::api_version(&()),
                "kind": K::kind(&()),
                "metadata": {
                    "name": meta.name,
                    "namespace": meta.namespace,
                    "resourceVersion": meta.resource_version,
                },
                "status": status,
            }),
        },
    }
}

// === How Workloads count ===

/// Whether it is there to stay, and answers.
pub(super) fn is_ready(workload: &Workload) -> bool {
    !is_deleted(&workload.metadata) && ready_condition(workload).is_some_and(Condition::is_true)
}

/// When a Workload that is Ready counts as available; none if it is not Ready. One that does not say since when it is Ready
/// is taken to have been so always.
pub(super) fn available_at(workload: &Workload, min_ready: i32) -> Option<Timestamp> {
    let ready = ready_condition(workload).filter(|_| is_ready(workload))?;
    let since = ready
        .last_transition_time
        .as_ref()
        .map_or(Timestamp::MIN, |time| time.0);
    Some(after(since, min_ready))
}

/// Counts, and tells when the next one becomes available by the passing of time alone.
pub(super) fn count<'a>(
    workloads: impl IntoIterator<Item = &'a Workload>,
    min_ready: i32,
    now: Timestamp,
) -> (Count, Option<Duration>) {
    let (mut count, mut next) = (Count::default(), None);
    for workload in workloads {
        if is_deleted(&workload.metadata) {
            continue;
        }
        count.live += 1;
        let Some(at) = available_at(workload, min_ready) else {
            continue;
        };
        count.ready += 1;
        if at <= now {
            count.available += 1;
        } else {
            next = sooner(next, Some(until(at, now)));
        }
    }
    (count, next)
}

/// Why Workloads are not Ready, by reason: `2 of 3 Workloads not Ready: 2 ImageNotFound: no such tag…`. None if all are.
pub(super) fn why_not_ready<'a>(
    workloads: impl IntoIterator<Item = &'a Workload>,
) -> Option<String> {
    let (mut all, mut reasons) = (0, BTreeMap::<&str, (usize, &str, &str)>::new());
    for workload in workloads {
        if is_deleted(&workload.metadata) {
            continue;
        }
        all += 1;
        if is_ready(workload) {
            continue;
        }
        let name = workload.metadata.name.as_deref().unwrap_or_default();
        let (reason, message) = match ready_condition(workload) {
            Some(ready) if !ready.reason.is_empty() => {
                (ready.reason.as_str(), ready.message.as_str())
            }
            _ => ("Pending", "nothing is reported yet"),
        };
        let (count, first, said) = reasons.entry(reason).or_insert((0, name, message));
        *count += 1;
        // Of many messages always the same one, or the status would change for ever.
        if name < *first {
            (*first, *said) = (name, message);
        }
    }
    let not_ready: usize = reasons.values().map(|(count, ..)| count).sum();
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(reason, (count, ..))| (std::cmp::Reverse(*count), *reason));
    let told: Vec<String> = reasons
        .iter()
        .map(|(reason, (count, _, message))| format!("{count} {reason}: {message}"))
        .collect();
    (not_ready > 0).then(|| {
        format!(
            "{not_ready} of {all} Workloads not Ready: {}",
            told.join("; ")
        )
    })
}

fn ready_condition(workload: &Workload) -> Option<&Condition> {
    let conditions = workload.status.as_ref().map_or(&[][..], |s| &s.conditions);
    Condition::find(conditions, condition_type::READY)
}

// === Conditions ===

/// A condition without its time; see [`timed`].
pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
) -> Condition {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE - 4)
            .rev()
            .find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        message.push('…');
    }
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        ..Condition::default()
    }
}

/// Puts generation and time to conditions: the former time where the status is the former one.
pub(super) fn timed(
    mut conditions: Vec<Condition>,
    former: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    for condition in &mut conditions {
        let same =
            Condition::find(former, &condition.type_).filter(|f| f.status == condition.status);
        let time = same.and_then(|f| f.last_transition_time.clone());
        condition.last_transition_time = Some(time.unwrap_or_else(|| seconds(now)));
        condition.observed_generation = generation;
    }
    conditions
}

/// Whether conditions that we own are others than those that are there: changed, missing, or left over.
pub(super) fn conditions_differ(now: &[Condition], ours: &[Condition], owned: &[&str]) -> bool {
    owned
        .iter()
        .any(|type_| Condition::find(now, type_) != Condition::find(ours, type_))
}

// === Times ===

/// A time as `metav1.Time` holds it, in whole seconds.
pub(super) fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// `seconds` later.
pub(super) fn after(time: Timestamp, seconds: i32) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MAX)
}

/// How long to wait for a time; at least a moment, and no longer than an hour, since clocks are set.
pub(super) fn until(time: Timestamp, now: Timestamp) -> Duration {
    let wait = time.duration_since(now);
    let wait = if wait.is_negative() {
        Duration::ZERO
    } else {
        wait.unsigned_abs()
    };
    wait.clamp(Duration::from_millis(10), Duration::from_secs(3600))
}

pub(super) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
