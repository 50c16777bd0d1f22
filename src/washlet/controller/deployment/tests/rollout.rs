//! From one revision to the next.

use super::*;

#[test]
fn a_change_rolls_out_and_keeps_the_former_revision() {
    let mut model = model(3, json!({}));
    model.roll();
    set_image(&mut model, "v2");
    model.settle();
    expect(&model, &[("v1", 3), ("v2", 1)]);
    let status = model.value(Kind::Deployment, "hello")["status"].clone();
    assert_ne!(status["currentReplicaSet"], status["previousReplicaSet"]);
    says(&model, "Ready", "False", "NewReplicaSetCreated");
    says(&model, "Available", "True", "MinimumReplicasAvailable");
    model.roll();
    expect(&model, &[("v1", 0), ("v2", 3)]);
    says(&model, "Ready", "True", "Available");
    assert_eq!(revision(&model, Kind::Deployment, "hello"), "2");
    assert!(model.value(Kind::Deployment, "hello")["status"]["previousReplicaSet"].is_null());
}

#[test]
fn a_revision_that_never_becomes_ready_leaves_the_former_one_serving() {
    let mut model = model(3, json!({ "progressDeadlineSeconds": 60 }));
    model.roll();
    set_image(&mut model, "v2");
    model.settle();
    let broken = model.sets().pop().unwrap();
    let broken = model.workloads_of(&broken)[0]
        .metadata
        .name
        .clone()
        .unwrap();
    model.say(&broken, false, "ImageNotFound", "v2 is not there; push it");
    model.settle();
    expect(&model, &[("v1", 3), ("v2", 1)]);
    let (_, _, message) = condition(&model, "Ready");
    let told = "Revision 2 (SET) has 0 of 3 Workloads available; 1 of 1 Workloads not Ready: 1 ImageNotFound: v2 is not there; \
                push it. Revision 1 (OLD) still has 3 Workloads, 3 of them available.";
    let sets = model.sets();
    let name = |index: usize| sets[index].metadata.name.clone().unwrap();
    assert_eq!(
        message,
        told.replace("SET", &name(1)).replace("OLD", &name(0))
    );
    says(&model, "Reconciling", "True", "NewReplicaSetCreated");
    let again = model.decide_deployment("hello").again.unwrap();
    assert!(
        again <= Duration::from_secs(60) && again > Duration::from_secs(50),
        "{again:?}"
    );
    model.pass(61);
    model.settle();
    says(&model, "Progressing", "False", "ProgressDeadlineExceeded");
    says(&model, "Stalled", "True", "ProgressDeadlineExceeded");
    says(&model, "Ready", "False", "ProgressDeadlineExceeded");
    says(&model, "Available", "True", "MinimumReplicasAvailable");
    absent(&model, "Reconciling");
    expect(&model, &[("v1", 3), ("v2", 1)]);
    assert_eq!(model.decide_deployment("hello").writes, []);
    // And when it does become Ready in the end, all is well.
    model.roll();
    expect(&model, &[("v1", 0), ("v2", 3)]);
    says(&model, "Ready", "True", "Available");
    absent(&model, "Stalled");
}

#[test]
fn a_workload_that_fails_after_the_rollout_is_no_failed_rollout() {
    let mut model = model(2, json!({ "progressDeadlineSeconds": 60 }));
    model.roll();
    let name = model.names(Kind::Workload)[0].clone();
    model.say(&name, false, "Trapped", "unreachable");
    model.settle();
    says(&model, "Progressing", "True", "NewReplicaSetAvailable");
    says(&model, "Ready", "False", "WorkloadsNotReady");
    model.pass(3600);
    model.settle();
    says(&model, "Progressing", "True", "NewReplicaSetAvailable");
    absent(&model, "Stalled");
}

#[test]
fn recreate_ends_all_before_it_begins() {
    let mut model = model(2, json!({ "deployPolicy": "Recreate" }));
    model.linger = true;
    model.roll();
    set_image(&mut model, "v2");
    model.settle();
    expect(&model, &[("v1", 0)]);
    assert_eq!(
        model.names(Kind::Workload).len(),
        2,
        "they are being deleted"
    );
    assert_eq!(
        model.decide_deployment("hello").again,
        Some(Duration::from_secs(1))
    );
    says(&model, "Progressing", "True", "ReplicaSetUpdated");
    model.end();
    model.roll();
    expect(&model, &[("v1", 0), ("v2", 2)]);
    says(&model, "Ready", "True", "Available");
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll_out() {
    let mut model = model(2, json!({}));
    model.roll();
    edit(
        &mut model,
        json!({ "paused": true, "replicas": 4, "template": template("v2") }),
    );
    model.roll();
    expect(&model, &[("v1", 4)]);
    says(&model, "Progressing", "Unknown", "DeploymentPaused");
    says(&model, "Ready", "False", "DeploymentPaused");
    absent(&model, "Reconciling");
    edit(&mut model, json!({ "paused": null }));
    model.roll();
    expect(&model, &[("v1", 0), ("v2", 4)]);
    says(&model, "Ready", "True", "Available");
}

#[test]
fn a_change_of_replicas_and_template_at_once() {
    let mut model = model(3, json!({}));
    model.roll();
    edit(
        &mut model,
        json!({ "replicas": 6, "template": template("v2") }),
    );
    model.roll();
    expect(&model, &[("v1", 0), ("v2", 6)]);
}

#[test]
fn going_back_uses_the_old_set_and_a_new_number() {
    let mut model = model(1, json!({}));
    for image in ["v1", "v2", "v1"] {
        set_image(&mut model, image);
        model.roll();
    }
    expect(&model, &[("v2", 0), ("v1", 1)]);
    assert_eq!(revision(&model, Kind::Deployment, "hello"), "3");
    let set = model.sets().pop().unwrap();
    assert_eq!(set.metadata.annotations.unwrap()[REVISION], "3");
    says(&model, "Ready", "True", "Available");
}

#[test]
fn an_annotation_of_the_template_restarts() {
    let mut model = model(2, json!({}));
    model.roll();
    let before = model.names(Kind::Workload);
    let restarted = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    edit(
        &mut model,
        json!({ "template": { "annotations": restarted } }),
    );
    model.roll();
    expect(&model, &[("v1", 0), ("v1", 2)]);
    assert!(
        model
            .names(Kind::Workload)
            .iter()
            .all(|name| !before.contains(name))
    );
}

#[test]
fn old_revisions_are_forgotten() {
    let mut model = model(1, json!({ "revisionHistoryLimit": 2 }));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        set_image(&mut model, image);
        model.roll();
    }
    expect(&model, &[("v3", 0), ("v4", 0), ("v5", 1)]);
    edit(&mut model, json!({ "revisionHistoryLimit": 0 }));
    model.roll();
    expect(&model, &[("v5", 1)]);
}

#[test]
fn available_is_ready_for_some_time() {
    let mut model = model(
        2,
        json!({ "minReadySeconds": 30, "maxSurge": 1, "maxUnavailable": 0 }),
    );
    model.settle();
    model.all_ready();
    model.settle();
    assert_eq!(model.sets()[0].spec.min_ready_seconds, Some(30));
    says(&model, "Available", "False", "MinimumReplicasUnavailable");
    assert_eq!(
        model.decide_deployment("hello").again,
        Some(Duration::from_secs(30))
    );
    model.pass(30);
    model.settle();
    says(&model, "Ready", "True", "Available");
    set_image(&mut model, "v2");
    model.roll();
    expect(&model, &[("v1", 2), ("v2", 1)]);
    edit(&mut model, json!({ "minReadySeconds": null }));
    model.roll();
    expect(&model, &[("v1", 0), ("v2", 2)]);
    assert_eq!(model.sets()[1].spec.min_ready_seconds, None);
}
