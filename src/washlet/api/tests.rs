use std::{fs, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::json;

use super::*;

fn schema_of(crd: &CustomResourceDefinition) -> &JSONSchemaProps {
    crd.spec.versions[0]
        .schema
        .as_ref()
        .unwrap()
        .open_api_v3_schema
        .as_ref()
        .unwrap()
}

/// Visits all schemas below one, with their paths.
fn each(path: &str, schema: &JSONSchemaProps, visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    visit(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        each(&format!("{path}.{name}"), property, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        each(&format!("{path}[]"), items, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        each(&format!("{path}{{}}"), values, visit);
    }
}

/// `UPDATE=1 cargo test` rewrites the files.
#[test]
fn crd_files_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let update = std::env::var_os("UPDATE").is_some();
    for crd in crds() {
        let path = folder.join(file_name(&crd));
        let text = yaml(&crd).unwrap();
        if update {
            fs::write(&path, &text).unwrap();
        }
        let file = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            file == text,
            "{} is not what src/washlet/api says; run UPDATE=1 cargo test",
            path.display()
        );
    }
}

#[test]
fn every_field_has_a_description() {
    for crd in crds() {
        each("", schema_of(&crd), &mut |path, schema| {
            let element = path.ends_with("[]") || path.ends_with("{}");
            let documented = schema.description.as_ref().is_some_and(|d| d.len() > 3);
            assert!(
                element || documented,
                "{}{path} has no description",
                crd.spec.names.kind
            );
        });
    }
}

#[test]
fn everything_is_bounded() {
    for crd in crds() {
        each("", schema_of(&crd), &mut |path, schema| {
            let bounded = match schema.type_.as_deref() {
                Some("array") => schema.max_items.is_some(),
                Some("string") => {
                    schema.max_length.is_some() || schema.enum_.is_some() || schema.format.is_some()
                }
                Some("object") => {
                    schema.additional_properties.is_none() || schema.max_properties.is_some()
                }
                _ => true,
            };
            assert!(bounded, "{}{path} has no upper bound", crd.spec.names.kind);
        });
    }
}

#[test]
fn an_object_of_another_version_does_not_break_a_list() {
    let object = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
        "kind": "Workload",
        "metadata": { "name": "x" },
        "spec": {
            "components": [{ "name": "a", "image": "b", "imagePullPolicy": "WhenItRains", "later": 1 }],
            "restartPolicy": "Sometimes",
            "later": {},
        },
        "status": { "conditions": [{ "type": "HostSelection", "status": "True", "lastProbeTime": "2024-01-01T00:00:00Z" }] },
    });
    let workload: Workload = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(
        workload.spec.components[0].image_pull_policy.as_deref(),
        Some("WhenItRains")
    );
    assert_eq!(
        unknown_fields(&object),
        [
            "spec.components[0].later",
            "spec.later",
            "status.conditions[0].lastProbeTime"
        ]
    );
}

#[test]
fn host_has_its_fields_at_the_top() {
    let host = Host::new(
        "node-1",
        HostFields {
            host_id: "node-1".into(),
            ..HostFields::default()
        },
    );
    let value = serde_json::to_value(&host).unwrap();
    assert_eq!(value["hostId"], "node-1");
}

#[test]
fn admission_without_a_server() {
    let object = json!({ "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": {}, "spec": null, "spce": 1, "spacs": null });
    let mut admitted = object.clone();
    assert_eq!(admit(&mut admitted), ["spacs", "spce"]);
    assert!(serde_json::from_value::<Workload>(admitted).is_ok());
}
