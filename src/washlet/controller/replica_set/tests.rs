use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::{
    super::{
        model::Model,
        write::{Action, Kind},
    },
    rank::first_to_go,
};
use crate::washlet::api::Workload;

fn model(replicas: i32) -> Model {
    let mut model = Model::new();
    model.create(
        Kind::ReplicaSet,
        json!({
            "metadata": { "name": "set", "labels": { "runtime.wasmcloud.dev/workload-deployment": "hello" } },
            "spec": {
                "replicas": replicas,
                "template": {
                    "labels": { "app": "hello" },
                    "annotations": { "note": "x" },
                    "spec": { "components": [{ "name": "hello", "image": "v1" }] },
                },
            },
        }),
    );
    model
}

fn status(model: &Model) -> Value {
    model.value(Kind::ReplicaSet, "set")["status"].clone()
}

fn ready(model: &Model) -> (String, String, String) {
    model.condition(Kind::ReplicaSet, "set", "Ready").unwrap()
}

#[test]
fn workloads_are_made_from_the_template() {
    let mut model = model(2);
    model.act(Kind::ReplicaSet, "set");
    let workloads: Vec<Workload> = model.all(Kind::Workload);
    assert_eq!(workloads.len(), 2);
    for workload in &workloads {
        let meta = &workload.metadata;
        assert!(meta.name.as_ref().unwrap().starts_with("set-"));
        let labels = meta.labels.as_ref().unwrap();
        assert_eq!(labels["app"], "hello");
        assert_eq!(labels["runtime.wasmcloud.dev/workload-deployment"], "hello");
        assert_eq!(labels["washlet.dev/replica-set"], "set");
        assert_eq!(meta.annotations.as_ref().unwrap()["note"], "x");
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.controller, owner.block_owner_deletion),
            (Some(true), Some(true))
        );
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str()),
            ("WorkloadReplicaSet", "set")
        );
        assert_eq!(workload.spec.components[0].image, "v1");
    }
}

#[test]
fn a_decision_on_an_old_state_makes_no_double() {
    let mut model = model(5);
    let (first, second) = (model.decide_set("set"), model.decide_set("set"));
    assert_eq!(first, second);
    for write in first.writes.iter().chain(&second.writes) {
        let _ = model.apply(write);
    }
    assert_eq!(model.names(Kind::Workload).len(), 5);
}

#[test]
fn a_settled_set_writes_nothing() {
    let mut model = model(3);
    model.settle();
    assert_eq!(
        ready(&model),
        (
            "False".into(),
            "WorkloadsNotReady".into(),
            "3 of 3 Workloads not Ready: 3 Pending: nothing is reported yet".into()
        )
    );
    model.all_ready();
    model.settle();
    assert_eq!(ready(&model).0, "True");
    let status = status(&model);
    assert_eq!(
        status["replicas"],
        json!({ "expected": 3, "current": 3, "ready": 3, "unavailable": 0 })
    );
    assert_eq!(
        (&status["currentReplicas"], &status["selector"]),
        (&json!(3), &json!("washlet.dev/replica-set=set"))
    );
    model.pass(3600);
    assert_eq!(model.decide_set("set").writes, []);
}

#[test]
fn a_lost_workload_is_replaced_and_a_surplus_one_goes() {
    let mut model = model(3);
    model.roll();
    let lost = model.names(Kind::Workload)[1].clone();
    model.remove(Kind::Workload, &lost);
    model.settle();
    assert_eq!(model.names(Kind::Workload).len(), 3);
    model.edit(
        Kind::ReplicaSet,
        "set",
        json!({ "spec": { "replicas": 1 } }),
    );
    model.settle();
    assert_eq!(model.names(Kind::Workload).len(), 1);
    model.edit(
        Kind::ReplicaSet,
        "set",
        json!({ "spec": { "replicas": 0 } }),
    );
    model.settle();
    assert_eq!(
        (model.names(Kind::Workload).len(), ready(&model).0),
        (0, "True".into())
    );
}

#[test]
fn those_that_are_being_deleted_do_not_count() {
    let mut model = model(2);
    model.linger = true;
    model.roll();
    let name = model.names(Kind::Workload)[0].clone();
    model.edit(
        Kind::Workload,
        &name,
        json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    model.settle();
    assert_eq!(
        model.names(Kind::Workload).len(),
        3,
        "its name is not free, but its place is"
    );
    assert_eq!(status(&model)["currentReplicas"], 2);
}

#[test]
fn not_ready_ones_are_counted_by_reason() {
    let mut model = model(4);
    model.settle();
    let names = model.names(Kind::Workload);
    model.ready(&names[0]);
    model.say(&names[1], false, "ImageNotFound", "no tag v9");
    model.say(&names[2], false, "Unschedulable", "0/3 hosts");
    model.say(&names[3], false, "ImageNotFound", "another message");
    model.settle();
    let expected =
        "3 of 4 Workloads not Ready: 2 ImageNotFound: no tag v9; 1 Unschedulable: 0/3 hosts";
    assert_eq!(ready(&model).2, expected);
    assert_eq!(status(&model)["replicas"]["unavailable"], 3);
}

#[test]
fn available_is_ready_for_some_time() {
    let mut model = model(1);
    model.edit(
        Kind::ReplicaSet,
        "set",
        json!({ "spec": { "minReadySeconds": 30 } }),
    );
    model.settle();
    model.all_ready();
    model.pass(10);
    model.settle();
    assert_eq!(
        (
            status(&model)["readyReplicas"].clone(),
            status(&model)["availableReplicas"].clone()
        ),
        (json!(1), json!(0))
    );
    assert_eq!(ready(&model).1, "NotReadyForLong");
    assert_eq!(model.decide_set("set").again, Some(Duration::from_secs(20)));
    model.pass(20);
    model.settle();
    assert_eq!(
        (ready(&model).0, model.decide_set("set").again),
        ("True".into(), None)
    );
}

#[test]
fn orphans_are_adopted_and_strangers_left_alone() {
    let mut model = model(2);
    let orphan = |name: &str, label: &str| json!({ "metadata": { "name": name, "labels": { "washlet.dev/replica-set": label } }, "spec": {} });
    model.create(Kind::Workload, orphan("mine", "set"));
    model.create(Kind::Workload, orphan("other", "tes"));
    let mut controlled = orphan("controlled", "set");
    controlled["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": true }]);
    model.create(Kind::Workload, controlled);
    model.settle();
    let uid = model.value(Kind::ReplicaSet, "set")["metadata"]["uid"].clone();
    assert_eq!(
        model.value(Kind::Workload, "mine")["metadata"]["ownerReferences"][0]["uid"],
        uid
    );
    assert!(model.value(Kind::Workload, "other")["metadata"]["ownerReferences"].is_null());
    assert_eq!(
        model.value(Kind::Workload, "controlled")["metadata"]["ownerReferences"][0]["uid"],
        "x"
    );
    // Two of its own: the adopted one and one more.
    assert_eq!(model.names(Kind::Workload).len(), 4);
}

#[test]
fn one_that_is_relabelled_is_let_go_and_replaced() {
    let mut model = model(2);
    model.roll();
    let before: BTreeSet<String> = model.names(Kind::Workload).into_iter().collect();
    let gone = before.first().unwrap().clone();
    model.edit(
        Kind::Workload,
        &gone,
        json!({ "metadata": { "labels": { "washlet.dev/replica-set": null } } }),
    );
    model.roll();
    assert_eq!(
        model.value(Kind::Workload, &gone)["metadata"]["ownerReferences"],
        json!([])
    );
    assert_eq!(
        (model.names(Kind::Workload).len(), ready(&model).0),
        (3, "True".into())
    );
    // And again: the name of the one that was let go is still taken.
    let second = before.last().unwrap().clone();
    model.edit(
        Kind::Workload,
        &second,
        json!({ "metadata": { "labels": { "washlet.dev/replica-set": "debug" } } }),
    );
    model.roll();
    assert_eq!(
        (model.names(Kind::Workload).len(), ready(&model).0),
        (4, "True".into())
    );
}

#[test]
fn a_new_template_replaces_them_as_its_own_become_available() {
    let mut model = model(2);
    model.roll();
    let former = model.names(Kind::Workload);
    let spec = json!({ "components": [{ "name": "hello", "image": "v2" }] });
    model.edit(
        Kind::ReplicaSet,
        "set",
        json!({ "spec": { "template": { "spec": spec } } }),
    );
    model.settle();
    assert_eq!(
        model.names(Kind::Workload).len(),
        4,
        "the former ones serve on"
    );
    assert_eq!(status(&model)["updatedReplicas"], 2);
    let first = model
        .names(Kind::Workload)
        .into_iter()
        .find(|name| !former.contains(name))
        .unwrap();
    model.ready(&first);
    model.settle();
    assert_eq!(model.names(Kind::Workload).len(), 3);
    model.roll();
    let workloads: Vec<Workload> = model.all(Kind::Workload);
    assert_eq!(workloads.len(), 2);
    assert!(workloads.iter().all(|w| w.spec.components[0].image == "v2"));
    assert_eq!(ready(&model).0, "True");
}

#[test]
fn a_hash_of_another_version_replaces_nothing() {
    let mut model = model(1);
    model.roll();
    let name = model.names(Kind::Workload)[0].clone();
    let other = json!({ "runtime.wasmcloud.dev/workload-replica-set-generation": "other" });
    model.edit(
        Kind::Workload,
        &name,
        json!({ "metadata": { "annotations": other } }),
    );
    model.settle();
    assert_eq!(model.names(Kind::Workload), [name]);
}

#[test]
fn a_refusal_is_told_and_tried_with_one() {
    let mut model = model(700);
    let creates = |model: &Model| {
        let writes = model.decide_set("set").writes;
        writes
            .iter()
            .filter(|w| matches!(w.action, Action::Create(_)))
            .count()
    };
    assert_eq!(creates(&model), 500, "not all at once");
    model.refuses = Some("exceeded quota");
    assert_eq!(creates(&model), 1);
    model.settle();
    let failure = model
        .condition(Kind::ReplicaSet, "set", "ReplicaFailure")
        .unwrap();
    assert_eq!(
        (failure.0.as_str(), failure.2.as_str()),
        ("True", "The API server refuses: exceeded quota")
    );
    model.refuses = None;
    model.settle();
    assert_eq!(model.names(Kind::Workload).len(), 700);
    assert_eq!(
        model.condition(Kind::ReplicaSet, "set", "ReplicaFailure"),
        None
    );
}

#[test]
fn a_set_that_is_being_deleted_makes_and_deletes_nothing() {
    let mut model = model(2);
    model.roll();
    model.edit(
        Kind::ReplicaSet,
        "set",
        json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" }, "spec": { "replicas": 1 } }),
    );
    let name = model.names(Kind::Workload)[0].clone();
    model.edit(
        Kind::Workload,
        &name,
        json!({ "metadata": { "labels": { "washlet.dev/replica-set": "x" } } }),
    );
    let writes = model.decide_set("set").writes;
    assert!(
        writes
            .iter()
            .all(|w| matches!(w.action, Action::Status { .. })),
        "{writes:?}"
    );
}

/// Name, host, Ready, second of becoming Ready, second of creation.
type Ranked = (&'static str, Option<&'static str>, bool, i64, i64);

#[test]
fn the_least_useful_go_first() {
    let all: [Ranked; 8] = [
        ("c-old-alone", Some("c"), true, 10, 1),
        ("a-third", Some("a"), true, 30, 3),
        ("a-second", Some("a"), true, 20, 2),
        ("a-first", Some("a"), true, 10, 1),
        ("b-broken", Some("b"), false, 40, 1),
        ("nowhere", None, false, 0, 1),
        ("d-twin-2", Some("d"), true, 10, 1),
        ("d-twin-1", Some("d"), true, 10, 1),
    ];
    let second = |second: i64| jiff::Timestamp::from_second(second).unwrap();
    let workloads: Vec<Workload> = all
        .iter()
        .map(|(name, host, ready, since, created)| {
            let condition = json!({ "type": "Ready", "status": if *ready { "True" } else { "False" }, "lastTransitionTime": second(*since) });
            serde_json::from_value(json!({
                "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
                "kind": "Workload",
                "metadata": { "name": name, "creationTimestamp": second(*created) },
                "spec": {},
                "status": { "hostId": host, "conditions": [condition] },
            }))
            .unwrap()
        })
        .collect();
    let order = first_to_go(&workloads.iter().collect::<Vec<_>>());
    let names: Vec<&str> = order
        .iter()
        .map(|w| w.metadata.name.as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "nowhere",
            "b-broken",
            "a-third",
            "a-second",
            "a-first",
            "d-twin-1",
            "d-twin-2",
            "c-old-alone"
        ]
    );
}
