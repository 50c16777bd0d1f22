mod artifact;
mod rollout;

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        model::Model,
        write::{Action, Kind},
    },
    rollout::{Limits, Plan, Size, roll, scale},
};
use crate::washlet::api::{WorkloadDeploymentSpec, WorkloadReplicaSet};

const REVISION: &str = "washlet.dev/revision";

fn template(image: &str) -> Value {
    json!({ "spec": { "components": [{ "name": "hello", "image": image }] } })
}

/// A deployment `hello`, with more fields in its spec.
fn model(replicas: i32, more: Value) -> Model {
    let mut model = Model::new();
    let metadata = json!({
        "name": "hello",
        "labels": { "team": "a" },
        "annotations": { "note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}" },
    });
    let spec = json!({ "replicas": replicas, "template": template("v1") });
    model.create(
        Kind::Deployment,
        json!({ "metadata": metadata, "spec": spec }),
    );
    edit(&mut model, more);
    model
}

fn edit(model: &mut Model, spec: Value) {
    model.edit(Kind::Deployment, "hello", json!({ "spec": spec }));
}

fn set_image(model: &mut Model, image: &str) {
    edit(model, json!({ "template": template(image) }));
}

fn image(set: &WorkloadReplicaSet) -> &str {
    &set.spec.template.spec.components[0].image
}

/// Image and size of each set, the oldest revision first.
fn sizes(model: &Model) -> Vec<(String, i32)> {
    let sets = model.sets();
    sets.iter()
        .map(|set| (image(set).to_owned(), set.spec.replicas.unwrap()))
        .collect()
}

fn expect(model: &Model, wanted: &[(&str, i32)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(image, size)| ((*image).to_owned(), *size))
        .collect();
    assert_eq!(sizes(model), wanted);
}

fn condition(model: &Model, type_: &str) -> (String, String, String) {
    model
        .condition(Kind::Deployment, "hello", type_)
        .unwrap_or_else(|| panic!("no {type_}"))
}

/// Status and reason of a condition.
fn says(model: &Model, type_: &str, status: &str, reason: &str) {
    let (is, why, message) = condition(model, type_);
    assert_eq!(
        (is.as_str(), why.as_str()),
        (status, reason),
        "{type_}: {message}"
    );
}

fn absent(model: &Model, type_: &str) {
    assert_eq!(model.condition(Kind::Deployment, "hello", type_), None);
}

fn revision(model: &Model, kind: Kind, name: &str) -> String {
    model.value(kind, name)["metadata"]["annotations"][REVISION]
        .as_str()
        .unwrap()
        .to_owned()
}

// === Arithmetic ===

#[test]
fn limits_are_those_of_kubernetes() {
    // replicas, maxSurge, maxUnavailable, and what they come to.
    let cases = [
        (1, Value::Null, Value::Null, 1, 0),
        (3, Value::Null, Value::Null, 1, 0),
        (4, Value::Null, Value::Null, 1, 1),
        (10, Value::Null, Value::Null, 3, 2),
        (10, json!(2), json!(3), 2, 3),
        (10, json!("30%"), json!("39%"), 3, 3),
        (10, json!("200%"), json!("100%"), 20, 10),
        (3, json!(0), json!("10%"), 0, 1),
        (3, json!("0%"), json!(0), 0, 1),
        (2, json!(0), json!(5), 0, 2),
        (0, Value::Null, Value::Null, 0, 0),
    ];
    for (replicas, surge, unavailable, most, fewest) in cases {
        let mut spec = json!({ "replicas": replicas, "template": { "spec": {} } });
        for (name, value) in [("maxSurge", &surge), ("maxUnavailable", &unavailable)] {
            if !value.is_null() {
                spec[name] = value.clone();
            }
        }
        let spec: WorkloadDeploymentSpec = serde_json::from_value(spec).unwrap();
        let limits = Limits::of(&spec);
        let what = format!("{replicas} {surge} {unavailable}");
        assert_eq!((limits.surge, limits.unavailable), (most, fewest), "{what}");
    }
}

fn limits(replicas: i32, surge: i32, unavailable: i32) -> Limits {
    Limits {
        replicas,
        surge,
        unavailable,
        recreate: false,
    }
}

fn size(size: i32, available: i32) -> Size {
    Size {
        size,
        live: size,
        existing: size,
        available,
        ..Size::default()
    }
}

#[test]
fn one_step_of_a_rolling_update() {
    // What, limits, sets with the new one last, and what they become.
    let cases: [(&str, Limits, &[Size], &[i32]); 11] = [
        (
            "the new one grows by the surge",
            limits(3, 1, 0),
            &[size(3, 3), size(0, 0)],
            &[3, 1],
        ),
        (
            "nothing while it is not available",
            limits(3, 1, 0),
            &[size(3, 3), size(1, 0)],
            &[3, 1],
        ),
        (
            "the old one makes room",
            limits(3, 1, 0),
            &[size(3, 3), size(1, 1)],
            &[2, 1],
        ),
        (
            "without surge the old one goes first",
            limits(3, 0, 1),
            &[size(3, 3), size(0, 0)],
            &[2, 0],
        ),
        (
            "what is broken goes first, of all",
            limits(3, 1, 0),
            &[size(2, 0), size(2, 2), size(1, 1)],
            &[0, 2, 1],
        ),
        (
            "but no more than may be missing",
            limits(4, 0, 1),
            &[size(4, 2), size(0, 0)],
            &[3, 0],
        ),
        (
            "what the new one lacks is kept elsewhere",
            limits(4, 1, 1),
            &[size(4, 2), size(1, 0)],
            &[3, 1],
        ),
        (
            "the oldest goes first",
            limits(4, 1, 1),
            &[size(2, 2), size(2, 2), size(1, 1)],
            &[0, 2, 1],
        ),
        (
            "the last step",
            limits(3, 1, 0),
            &[size(1, 1), size(3, 3)],
            &[0, 3],
        ),
        (
            "a new one that is too large",
            limits(2, 1, 0),
            &[size(0, 0), size(5, 5)],
            &[0, 2],
        ),
        (
            "one that has not shrunk yet counts in full",
            limits(3, 1, 0),
            &[
                Size {
                    live: 3,
                    ..size(2, 2)
                },
                size(1, 1),
            ],
            &[2, 1],
        ),
    ];
    for (what, limits, sets, wanted) in cases {
        let plan = roll(sets, Some(sets.len() - 1), &limits);
        assert_eq!(
            (plan.sizes.as_slice(), plan.create),
            (wanted, None),
            "{what}"
        );
    }
    let plan = roll(&[size(3, 3)], None, &limits(3, 1, 0));
    assert_eq!(
        plan,
        Plan {
            sizes: vec![3],
            create: Some(1),
            again: None
        }
    );
}

#[test]
fn sets_are_scaled_in_proportion() {
    let before = |set: Size, replicas: i32, most: i32| Size {
        desired: Some(replicas),
        limit: Some(most),
        ..set
    };
    // The example of Kubernetes' documentation: 10 replicas, surge 3, scaled to 15 in the middle of a rollout.
    let sets = [before(size(8, 8), 10, 13), before(size(5, 0), 10, 13)];
    assert_eq!(scale(&sets, Some(1), &limits(15, 3, 2)).sizes, [11, 7]);
    let sets = [before(size(11, 11), 15, 18), before(size(7, 0), 15, 18)];
    assert_eq!(scale(&sets, Some(1), &limits(10, 3, 2)).sizes, [8, 5]);
    assert_eq!(scale(&sets, Some(1), &limits(0, 3, 2)).sizes, [0, 0]);
    // The only one that has any, the one of the newest revision, and former ones that are left over.
    assert_eq!(
        scale(&[size(3, 3), size(0, 0)], Some(1), &limits(5, 1, 0)).sizes,
        [5, 0]
    );
    assert_eq!(
        scale(&[size(0, 0), size(0, 0)], Some(0), &limits(5, 1, 0)).sizes,
        [5, 0]
    );
    let sets = [size(1, 1), before(size(5, 5), 5, 6)];
    assert_eq!(scale(&sets, Some(1), &limits(5, 1, 0)).sizes, [0, 5]);
}

// === Rollouts ===

#[test]
fn the_first_revision() {
    let mut model = model(3, json!({ "minReadySeconds": 0 }));
    model.settle();
    says(&model, "Available", "False", "MinimumReplicasUnavailable");
    says(&model, "Progressing", "True", "NewReplicaSetCreated");
    says(&model, "Reconciling", "True", "NewReplicaSetCreated");
    let one = model.names(Kind::Workload)[0].clone();
    model.ready(&one);
    model.settle();
    says(&model, "Progressing", "True", "ReplicaSetUpdated");
    model.roll();
    expect(&model, &[("v1", 3)]);
    let set = model.sets().remove(0);
    let meta = &set.metadata;
    let (labels, notes) = (
        meta.labels.as_ref().unwrap(),
        meta.annotations.as_ref().unwrap(),
    );
    assert_eq!(
        (
            labels["team"].as_str(),
            labels["runtime.wasmcloud.dev/workload-deployment"].as_str()
        ),
        ("a", "hello")
    );
    assert_eq!(
        meta.name.as_deref(),
        Some(format!("hello-{}", labels["washlet.dev/template-hash"]).as_str())
    );
    assert_eq!(
        (notes["note"].as_str(), notes[REVISION].as_str()),
        ("x", "1")
    );
    assert!(!notes.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
    assert_eq!(revision(&model, Kind::Deployment, "hello"), "1");
    let workload = &model.workloads_of(&set)[0];
    assert_eq!(
        workload.metadata.labels.as_ref().unwrap()["runtime.wasmcloud.dev/workload-deployment"],
        "hello"
    );
    says(&model, "Ready", "True", "Available");
    says(&model, "Available", "True", "MinimumReplicasAvailable");
    says(&model, "Progressing", "True", "NewReplicaSetAvailable");
    absent(&model, "Reconciling");
    let status = &model.value(Kind::Deployment, "hello")["status"];
    assert_eq!(
        status["replicas"],
        json!({ "expected": 3, "current": 3, "ready": 3, "unavailable": 0 })
    );
    assert_eq!(
        status["selector"],
        "runtime.wasmcloud.dev/workload-deployment=hello"
    );
    assert_eq!(
        (
            &status["currentReplicas"],
            &status["updatedReplicas"],
            &status["availableReplicas"]
        ),
        (&json!(3), &json!(3), &json!(3))
    );
    assert_eq!(
        status["observedGeneration"],
        model.value(Kind::Deployment, "hello")["metadata"]["generation"]
    );
    model.pass(86_400);
    assert_eq!(model.decide_deployment("hello").writes, []);
}

// === What belongs to it ===

#[test]
fn a_deployment_that_is_made_anew_takes_over_what_is_there() {
    let mut model = model(2, json!({}));
    model.roll();
    let (sets, workloads) = (model.names(Kind::ReplicaSet), model.names(Kind::Workload));
    let old = model.value(Kind::Deployment, "hello").clone();
    model.remove(Kind::Deployment, "hello");
    model.edit(
        Kind::ReplicaSet,
        &sets[0],
        json!({ "metadata": { "ownerReferences": [] } }),
    );
    let metadata = json!({ "name": "hello" });
    model.create(
        Kind::Deployment,
        json!({ "metadata": metadata, "spec": old["spec"] }),
    );
    model.roll();
    assert_eq!(
        (model.names(Kind::ReplicaSet), model.names(Kind::Workload)),
        (sets.clone(), workloads)
    );
    let uid = model.value(Kind::Deployment, "hello")["metadata"]["uid"].clone();
    assert_eq!(
        model.value(Kind::ReplicaSet, &sets[0])["metadata"]["ownerReferences"][0]["uid"],
        uid
    );
    says(&model, "Ready", "True", "Available");
}

#[test]
fn a_set_that_is_relabelled_is_let_go() {
    let mut model = model(1, json!({}));
    model.roll();
    let set = model.names(Kind::ReplicaSet)[0].clone();
    let label = json!({ "runtime.wasmcloud.dev/workload-deployment": null });
    model.edit(
        Kind::ReplicaSet,
        &set,
        json!({ "metadata": { "labels": label } }),
    );
    model.roll();
    assert_eq!(
        model.value(Kind::ReplicaSet, &set)["metadata"]["ownerReferences"],
        json!([])
    );
    assert_eq!(
        model.names(Kind::ReplicaSet).len(),
        2,
        "the name of the other is taken"
    );
    assert_eq!(
        model.value(Kind::Deployment, "hello")["status"]["collisionCount"],
        1
    );
    says(&model, "Ready", "True", "Available");
}

#[test]
fn a_deployment_that_is_being_deleted_makes_nothing() {
    let mut model = model(1, json!({}));
    model.roll();
    set_image(&mut model, "v2");
    model.edit(
        Kind::Deployment,
        "hello",
        json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    let writes = model.decide_deployment("hello").writes;
    assert!(
        writes
            .iter()
            .all(|w| matches!(w.action, Action::Status { .. })),
        "{writes:?}"
    );
}

#[test]
fn a_refusal_is_told_and_runs_into_the_deadline() {
    let mut model = model(1, json!({ "progressDeadlineSeconds": 60 }));
    model.refuses = Some("forbidden: exceeded quota");
    model.settle();
    says(&model, "ReplicaFailure", "True", "WriteRefused");
    says(&model, "Progressing", "True", "NewReplicaSetCreated");
    model.pass(61);
    model.settle();
    says(&model, "Stalled", "True", "ProgressDeadlineExceeded");
    model.refuses = None;
    model.roll();
    says(&model, "Ready", "True", "Available");
    absent(&model, "ReplicaFailure");
}

#[test]
fn a_decision_on_an_old_state_makes_no_second_set() {
    let mut model = model(2, json!({}));
    let (first, second) = (
        model.decide_deployment("hello"),
        model.decide_deployment("hello"),
    );
    assert_eq!(first, second);
    for write in first.writes.iter().chain(&second.writes) {
        let _ = model.apply(write);
    }
    assert_eq!(model.names(Kind::ReplicaSet).len(), 1);
}

// === Artifacts ===

#[test]
fn the_service_of_a_deployment_is_that_of_its_workloads() {
    let mut model = model(1, json!({ "kubernetes": { "service": { "name": "web" } } }));
    model.roll();
    let set = model.sets().remove(0);
    let kubernetes = model.workloads_of(&set)[0].spec.kubernetes.clone().unwrap();
    assert_eq!(kubernetes.service.unwrap().name, "web");
}
