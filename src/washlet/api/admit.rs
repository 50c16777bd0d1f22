//! What the API server does to an object before anybody else sees it, for `washlet run`, which has no API server.

use std::{collections::HashMap, sync::LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use super::{GROUP, VERSION, crds};

/// The schemas by kind. Making them takes longer than all else that `washlet run` does when a file has changed.
static SCHEMAS: LazyLock<HashMap<String, JSONSchemaProps>> = LazyLock::new(|| {
    let crds = crds().into_iter();
    crds.filter_map(|crd| {
        let mut versions = crd.spec.versions.into_iter();
        let schema = versions.find_map(|v| v.schema?.open_api_v3_schema)?;
        Some((crd.spec.names.kind, schema))
    })
    .collect()
});

/// Paths of the fields of an object of one of our kinds that the kind does not have, in order; most often a misspelling. An
/// object of any other kind has none that we know of.
#[must_use]
pub fn unknown_fields(object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != format!("{GROUP}/{VERSION}") {
        return unknown;
    }
    let kind = text("kind");
    let (Some(schema), Value::Object(fields)) = (SCHEMAS.get(kind), object) else {
        return unknown;
    };
    for (name, value) in fields {
        match name.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            _ => match schema.properties.as_ref().and_then(|p| p.get(name)) {
                Some(property) => visit(property, value, name, &mut unknown),
                None => unknown.push(name.clone()),
            },
        }
    }
    unknown
}

/// Collects what `value` has and `schema` has not.
fn visit(schema: &JSONSchemaProps, value: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match (
                    schema.properties.as_ref().and_then(|p| p.get(name)),
                    &schema.additional_properties,
                ) {
                    (Some(property), _) => visit(property, value, &path, unknown),
                    (None, Some(JSONSchemaPropsOrBool::Schema(values))) => {
                        visit(values, value, &path, unknown)
                    }
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    (None, _) => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    visit(schema, item, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

/// Does to an object what the API server does before anybody else sees it: drops nulls (`components:` with nothing after it
/// is no `components`), adds an absent `spec`, and returns the unknown fields, which the API server would drop too.
pub fn admit(object: &mut Value) -> Vec<String> {
    // A misspelt field is one with nothing after it, too.
    let unknown = unknown_fields(object);
    prune_nulls(object);
    let workload = object.get("kind").and_then(Value::as_str) == Some("Workload");
    if let Some(fields) = object.as_object_mut().filter(|_| workload) {
        fields
            .entry("spec")
            .or_insert_with(|| Value::Object(Map::new()));
    }
    unknown
}

fn prune_nulls(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}
