//! Kubernetes objects without types: a test states what a user would write, and reads what a user would see.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    discovery::{Scope, pinned_kind},
};
use serde_json::Value;

/// The field manager of everything that tests apply.
pub const MANAGER: &str = "washlet-e2e";

/// The parts of a standard condition that tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// The generation that it speaks of.
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    pub last_transition_time: String,
}

/// An object's condition of this type.
#[must_use]
pub fn condition(object: &DynamicObject, kind: &str) -> Option<Condition> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |field: &str| {
        found
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        observed_generation: found.get("observedGeneration").and_then(Value::as_i64),
        last_transition_time: text("lastTransitionTime"),
    })
}

/// The objects of a YAML text of one or many documents.
///
/// # Errors
/// When it is no YAML or a document is no object.
pub fn parse_yaml(text: &str) -> Result<Vec<DynamicObject>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("reading YAML")?;
    let objects = documents.into_iter().filter(|document| !document.is_null());
    objects
        .map(|document| {
            serde_json::from_value(document).context("a document is no Kubernetes object")
        })
        .collect()
}

/// Applies an object on the server side; `namespace` is for those that should have one and name none.
///
/// # Errors
/// When the API server refuses it or does not know its kind.
pub async fn apply(
    client: &Client,
    namespace: &str,
    mut object: DynamicObject,
) -> Result<DynamicObject> {
    let types = object
        .types
        .clone()
        .context("an object without apiVersion and kind")?;
    let name = object
        .metadata
        .name
        .clone()
        .with_context(|| format!("a {} without a name", types.kind))?;
    let kind = GroupVersionKind::try_from(&types)
        .with_context(|| format!("apiVersion of {}/{name}", types.kind))?;
    let (resource, capabilities) = pinned_kind(client, &kind)
        .await
        .with_context(|| format!("kind {}", types.kind))?;
    let api = if capabilities.scope == Scope::Namespaced {
        let namespace = object
            .metadata
            .namespace
            .get_or_insert_with(|| namespace.to_owned())
            .clone();
        Api::namespaced_with(client.clone(), &namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("applying {}/{name}", types.kind))
}

/// The API of a kind in a namespace (or of all, for kinds without one).
///
/// # Errors
/// When the kind is none that tests use.
pub fn api(client: &Client, namespace: &str, kind: &str) -> Result<Api<DynamicObject>> {
    let (group, version) = match kind {
        "Workload" | "WorkloadReplicaSet" | "WorkloadDeployment" | "Host" | "Artifact" => {
            ("runtime.wasmcloud.dev", "v1alpha1")
        }
        "ConfigMap" | "Event" | "Namespace" | "Node" | "Pod" | "Secret" | "Service"
        | "ServiceAccount" => ("", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            ("rbac.authorization.k8s.io", "v1")
        }
        _ => bail!("the harness does not know the kind {kind}: add it to `objects::api`"),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Ok(match kind {
        "Namespace" | "Node" | "ClusterRole" | "ClusterRoleBinding" => {
            Api::all_with(client.clone(), &resource)
        }
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    })
}

/// Whether a folder has YAML files.
#[must_use]
pub fn has_yaml(dir: &Path) -> bool {
    let Ok(entries) = dir.read_dir() else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "yaml")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_found_by_their_type() {
        let text = "kind: Workload\napiVersion: runtime.wasmcloud.dev/v1alpha1\nstatus:\n  conditions:\n  \
                    - {type: Ready, status: 'False', reason: ErrImagePull, message: why, observedGeneration: 2}\n---\n";
        let objects = parse_yaml(text).unwrap();
        let ready = condition(&objects[0], "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "ErrImagePull")
        );
        assert_eq!(ready.observed_generation, Some(2));
        assert_eq!(condition(&objects[0], "Linked"), None);
    }
}
