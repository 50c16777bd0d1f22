//! The kinds as CustomResourceDefinitions, as they are installed: what the derive makes, put into Kubernetes' own form.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{
    Artifact, Host, Workload, WorkloadDeployment, WorkloadReplicaSet, column, condition_type,
};

/// What is said of a new Workload, and of a new set or deployment of them, until somebody has looked at it.
const NO_HOST: &str = "No host has taken the workload yet.";
const NO_CONTROLLER: &str = "No controller has looked at it yet.";

/// A CRD could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// It has no JSON form.
    #[error("writing a CustomResourceDefinition as JSON")]
    Json(#[source] serde_json::Error),
    /// It has no YAML form.
    #[error("writing a CustomResourceDefinition as YAML")]
    Yaml(#[source] serde_saphyr::ser::Error),
}

/// All our kinds, ready to be applied.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut workload = tidied(Workload::crd(), column::WORKLOAD);
    // An absent `spec` is an empty one, as in wasmCloud.
    set_default(&mut workload, &["spec"], json!({}));
    set_defaults(&mut workload, NO_HOST);
    let mut set = tidied(WorkloadReplicaSet::crd(), column::REPLICA_SET);
    set_defaults(&mut set, NO_CONTROLLER);
    let mut deployment = tidied(WorkloadDeployment::crd(), column::DEPLOYMENT);
    set_defaults(&mut deployment, NO_CONTROLLER);
    for crd in [&mut set, &mut deployment] {
        set_default(crd, &["spec", "replicas"], json!(1));
    }
    set_default(
        &mut deployment,
        &["spec", "deployPolicy"],
        json!("RollingUpdate"),
    );
    let artifact = tidied(Artifact::crd(), column::ARTIFACT);
    vec![
        workload,
        set,
        deployment,
        tidied(Host::crd(), column::HOST),
        artifact,
    ]
}

/// The name of a CRD's file: `GROUP_PLURAL.yaml`.
#[must_use]
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// A CRD as YAML. The same CRD always gives the same bytes.
///
/// # Errors
/// [`CrdError`]; a CRD of [`crds`] never fails.
pub fn yaml(crd: &CustomResourceDefinition) -> Result<String, CrdError> {
    let mut value = serde_json::to_value(crd).map_err(CrdError::Json)?;
    whole_numbers(&mut value);
    let text = serde_saphyr::to_string(&value).map_err(CrdError::Yaml)?;
    Ok(format!(
        "# Generated from src/washlet/api by `washlet crds`; do not edit.\n{text}"
    ))
}

/// Writes `1.0` as `1`: all numbers of a schema are floating-point in `k8s_openapi`, and all of ours are whole.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|_| number.is_f64())
                .filter(|n| n.fract() == 0.0)
            {
                // Bounds of a schema are far below the 2^53 up to which this is exact.
                *value = (whole as i64).into();
            }
        }
        _ => {}
    }
}

/// Gives a CRD its columns, and puts its schemas into the form that Kubernetes' own tools give them.
fn tidied(
    mut crd: CustomResourceDefinition,
    columns: &[column::Column],
) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        version.additional_printer_columns =
            Some(columns.iter().map(column::Column::definition).collect());
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        {
            tidy(schema);
        }
    }
    crd
}

/// Recursively: no `nullable` (the API server then drops nulls, as it does for kinds of its own), none of the defaults that
/// the derive takes from serde (an absent field stays absent), and descriptions with one line a paragraph.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.default = None;
    schema.description = schema.description.take().map(|d| unwrapped(&d));
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// Joins the lines of each paragraph of a doc comment.
fn unwrapped(text: &str) -> String {
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|p| p.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        .collect();
    paragraphs.join("\n\n")
}

/// A new object is `Ready=Unknown` until somebody has looked at it: without this, Helm, Flux and Argo CD take an object that
/// nobody acts on for a healthy one.
fn set_defaults(crd: &mut CustomResourceDefinition, message: &str) {
    let conditions = json!([{
        "type": condition_type::READY,
        "status": "Unknown",
        "reason": "Pending",
        "message": message,
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]);
    set_default(crd, &["status"], json!({}));
    set_default(crd, &["status", "conditions"], conditions);
}

/// Gives the field at a path a default, in every version that has the field.
fn set_default(crd: &mut CustomResourceDefinition, path: &[&str], default: Value) {
    for version in &mut crd.spec.versions {
        let mut field = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut());
        for name in path {
            field = field.and_then(|f| f.properties.as_mut()?.get_mut(*name));
        }
        if let Some(field) = field {
            field.default = Some(JSON(default.clone()));
        }
    }
}
