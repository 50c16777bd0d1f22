//! `WorkloadReplicaSet`: a number of Workloads of one template.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, WorkloadSpec, schema};

/// How many Workloads, and what each of them is.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "runtime.wasmcloud.dev",
    version = "v1alpha1",
    kind = "WorkloadReplicaSet",
    namespaced,
    status = "WorkloadReplicaSetStatus",
    derive = "Default",
    derive = "PartialEq",
    shortname = "wrs",
    category = "all",
    category = "wasm",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.currentReplicas",
        label_selector_path = ".status.selector"
    ),
    doc = "A WorkloadReplicaSet keeps a number of Workloads of one template. Most are made by a WorkloadDeployment, one for each of its revisions."
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReplicaSetSpec {
    /// How many Workloads there shall be. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,

    /// What each Workload is. When it changes, new Workloads are made, and the former ones go as the new ones become
    /// available.
    pub template: WorkloadTemplate,

    /// Seconds that a Workload must have been Ready before it counts as available. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
}

/// What Workloads are made from.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct WorkloadTemplate {
    /// Annotations of the Workloads. Any change is a change of the template, so `kubectl.kubernetes.io/restartedAt` with the
    /// time as its value replaces all Workloads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,

    /// Labels of the Workloads; those that the controller itself selects by are added. Example: `app: hello`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::object_labels")]
    pub labels: BTreeMap<String, String>,

    /// The spec of the Workloads.
    pub spec: WorkloadSpec,
}

/// How the set is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReplicaSetStatus {
    /// The last generation that the controller acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state, one aspect each: `Ready` is True while all Workloads are available. Beside it, only while true:
    /// `Reconciling`, and `ReplicaFailure` when Workloads cannot be created or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The counts once more, in wasmCloud's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaCounts>,

    /// Workloads that there are, without those that are being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub current_replicas: Option<i32>,

    /// Of those, the ones of the current template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub updated_replicas: Option<i32>,

    /// Of the current ones, those that are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ready_replicas: Option<i32>,

    /// Of the current ones, those that have been Ready for `spec.minReadySeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub available_replicas: Option<i32>,

    /// The labels of its Workloads, as a text; autoscalers read it through `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
}

/// Counts of Workloads.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// How many there shall be.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub expected: i32,
    /// How many there are.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub current: i32,
    /// How many are Ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// How many are missing or not available.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub unavailable: i32,
}
