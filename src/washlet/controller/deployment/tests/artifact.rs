//! A deployment whose image is an Artifact.

use super::*;

fn with_artifact() -> Model {
    let artifacts = json!([{ "name": "app", "artifactFrom": { "name": "hello-app" } }]);
    model(
        1,
        json!({ "artifacts": artifacts, "template": template("artifact://app") }),
    )
}

fn publish(model: &mut Model, image: &str) {
    let spec = json!({ "image": image, "imagePullSecret": { "name": "login" } });
    model.create(
        Kind::Artifact,
        json!({ "metadata": { "name": "hello-app" }, "spec": spec }),
    );
}

#[test]
fn an_artifact_is_an_image_and_a_new_image_is_a_revision() {
    let mut model = with_artifact();
    publish(&mut model, "registry/app:1");
    model.roll();
    expect(&model, &[("registry/app:1", 1)]);
    let set = model.sets().remove(0);
    assert_eq!(
        set.spec.template.spec.components[0]
            .image_pull_secret
            .as_ref()
            .unwrap()
            .name,
        "login"
    );
    model.edit(
        Kind::Artifact,
        "hello-app",
        json!({ "spec": { "image": "registry/app:2" } }),
    );
    model.roll();
    expect(&model, &[("registry/app:1", 0), ("registry/app:2", 1)]);
    // What was published elsewhere counts, if it is said of the present spec.
    model.edit(
        Kind::Artifact,
        "hello-app",
        json!({ "status": { "observedGeneration": 1, "artifactUrl": "cache/app:1" } }),
    );
    model.roll();
    expect(&model, &[("registry/app:1", 0), ("registry/app:2", 1)]);
    model.edit(
        Kind::Artifact,
        "hello-app",
        json!({ "status": { "observedGeneration": 2, "artifactUrl": "cache/app:2" } }),
    );
    model.roll();
    assert_eq!(sizes(&model).pop(), Some(("cache/app:2".to_owned(), 1)));
}

#[test]
fn a_missing_artifact_is_named_and_stops_nothing_that_serves() {
    let mut model = with_artifact();
    model.roll();
    assert!(model.names(Kind::ReplicaSet).is_empty());
    says(&model, "Stalled", "True", "ReferenceNotFound");
    let message = condition(&model, "Ready").2;
    assert!(
        message.contains("the Artifact hello-app, which spec.artifacts calls app, does not exist"),
        "{message}"
    );
    publish(&mut model, "registry/app:1");
    model.roll();
    says(&model, "Ready", "True", "Available");
    model.remove(Kind::Artifact, "hello-app");
    edit(&mut model, json!({ "replicas": 2 }));
    model.roll();
    expect(&model, &[("registry/app:1", 2)]);
    says(&model, "Available", "True", "MinimumReplicasAvailable");
    says(&model, "Ready", "False", "ReferenceNotFound");
    edit(
        &mut model,
        json!({ "template": template("artifact://other") }),
    );
    model.roll();
    says(&model, "Stalled", "True", "InvalidSpec");
}
