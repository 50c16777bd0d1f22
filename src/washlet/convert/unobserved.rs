//! Fields of the schema that nothing observes yet. A workload that sets one is refused; it is never run as if the field were
//! not there.

use std::sync::Arc;

use serde_json::Value;

use super::{named, problem::Problems};
use crate::{
    fault::{Reason, Stage},
    washlet::api,
};

/// A field that nothing observes yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unobserved {
    /// Its path below `spec`, with `[]` for every element of a list.
    pub field: &'static str,
    /// What it asks for.
    pub feature: &'static str,
    /// The value that is the same as none.
    pub default: Option<&'static str>,
}

/// All of them. Empty values, zero and false are the same as none. The list shrinks as features arrive.
pub const UNOBSERVED: &[Unobserved] = &[
    field("components[].livenessProbe", "probes"),
    field("components[].readinessProbe", "probes"),
    field("components[].startupProbe", "probes"),
    field("service.livenessProbe", "probes"),
    field("service.readinessProbe", "probes"),
    field("service.startupProbe", "probes"),
    field("hostInterfaces[].name", "several backends of one package"),
];

const fn field(field: &'static str, feature: &'static str) -> Unobserved {
    Unobserved {
        field,
        feature,
        default: None,
    }
}

/// Adds a problem for each unobserved field that is set.
pub(super) fn check(workload: &api::WorkloadSpec, problems: &mut Problems) {
    // The types of a manifest always have a JSON form.
    let spec = serde_json::to_value(workload).unwrap_or_default();
    for unobserved in UNOBSERVED {
        let mut set = Vec::new();
        find(
            &spec,
            unobserved.field,
            "spec".to_owned(),
            &mut |path, value| {
                let default = unobserved.default.is_some_and(|default| value == default);
                if !default && !is_empty(value) {
                    set.push(path);
                }
            },
        );
        for path in set {
            let text = format!(
                "asks for {}, which this version does not have; remove the field",
                unobserved.feature
            );
            problems.component = component_of(&path, workload);
            problems.add(Stage::Accept, Reason::UnsupportedSpec, path, text);
        }
    }
    problems.component = None;
}

/// The component that a path is about, if it is about one.
fn component_of(path: &str, workload: &api::WorkloadSpec) -> Option<Arc<str>> {
    let (index, _) = path.strip_prefix("spec.components[")?.split_once(']')?;
    named(workload.components.get(index.parse::<usize>().ok()?)?)
}

/// Visits all that a path with `[]` leads to.
fn find(value: &Value, path: &str, so_far: String, visit: &mut dyn FnMut(String, &Value)) {
    let (step, rest) = path
        .split_once('.')
        .map_or((path, None), |(step, rest)| (step, Some(rest)));
    let (name, each) = step
        .strip_suffix("[]")
        .map_or((step, false), |name| (name, true));
    let Some(value) = value.get(name) else { return };
    let so_far = format!("{so_far}.{name}");
    let mut go_on = |value: &Value, so_far: String| match rest {
        Some(rest) => find(value, rest, so_far, visit),
        None => visit(so_far, value),
    };
    if each {
        for (index, element) in value.as_array().into_iter().flatten().enumerate() {
            go_on(element, format!("{so_far}[{index}]"));
        }
    } else {
        go_on(value, so_far);
    }
}

/// Whether a value says no more than its absence.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}
