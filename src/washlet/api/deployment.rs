//! `WorkloadDeployment`: a number of Workloads, and how they are replaced when their template changes.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Kubernetes, ObjectRef, ReplicaCounts, WorkloadTemplate, schema};

/// How many Workloads, what each of them is, and how a change of that comes about.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "runtime.wasmcloud.dev",
    version = "v1alpha1",
    kind = "WorkloadDeployment",
    namespaced,
    status = "WorkloadDeploymentStatus",
    derive = "Default",
    derive = "PartialEq",
    shortname = "wd",
    category = "all",
    category = "wasm",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.currentReplicas",
        label_selector_path = ".status.selector"
    ),
    doc = "A WorkloadDeployment keeps a number of Workloads of one template, and replaces them step by step when the template changes. Each template is a revision, with a WorkloadReplicaSet of its own."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "(has(self.deployPolicy) && self.deployPolicy == 'Recreate') || !has(self.maxSurge) || !has(self.maxUnavailable) \
     || !(type(self.maxSurge) == int ? self.maxSurge == 0 : self.maxSurge.matches('^0+%$')) \
     || !(type(self.maxUnavailable) == int ? self.maxUnavailable == 0 : self.maxUnavailable.matches('^0+%$'))",
    "maxUnavailable may not be 0 when maxSurge is 0: nothing could ever be replaced",
), schema::rule(
    "!has(self.template.spec.components) || self.template.spec.components.all(c, !c.image.startsWith('artifact://') \
     || (has(self.artifacts) && self.artifacts.exists(a, c.image == 'artifact://' + a.name)))",
    "every artifact:// image of a component must name an entry of spec.artifacts",
), schema::rule(
    "!has(self.template.spec.service) || !self.template.spec.service.image.startsWith('artifact://') \
     || (has(self.artifacts) && self.artifacts.exists(a, self.template.spec.service.image == 'artifact://' + a.name))",
    "the artifact:// image of the service must name an entry of spec.artifacts",
)]))]
pub struct WorkloadDeploymentSpec {
    /// How many Workloads there shall be. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,

    /// What each Workload is. A change makes a new revision.
    pub template: WorkloadTemplate,

    /// How Workloads of a former revision are replaced. `RollingUpdate` (the default): some at a time, within `maxSurge` and
    /// `maxUnavailable`. `Recreate`: all of them end before the first new one begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = schema::words(&["", "RollingUpdate", "Recreate"])))]
    pub deploy_policy: Option<String>,

    /// Names for Artifacts of this namespace; a component of the template with the image `artifact://NAME` gets the image of
    /// that Artifact, and its pull secret unless it has one. A new image in the Artifact is a new revision. Names are unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub artifacts: Vec<ArtifactSource>,

    /// How the Workloads appear to the rest of the cluster; takes the place of the template's. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,

    /// How many Workloads there may be beyond `replicas` during a rolling update: a number, or a share of `replicas` in
    /// percent, rounded up. Default: `25%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_percent")]
    pub max_surge: Option<IntOrString>,

    /// How many of `replicas` may be unavailable during a rolling update: a number, or a share of `replicas` in percent,
    /// rounded down. Default: `25%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_share")]
    pub max_unavailable: Option<IntOrString>,

    /// Seconds that a Workload must have been Ready before it counts as available. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,

    /// How many former revisions are kept to go back to, as WorkloadReplicaSets without Workloads. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision_history_limit: Option<i32>,

    /// Seconds without progress after which a rollout is reported as failed: `Progressing` is False, and `Stalled` is True. It
    /// is still tried, and the former revision goes on serving. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub progress_deadline_seconds: Option<i32>,

    /// While true, a change of the template is not rolled out; a change of `replicas` is still acted on. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// A name for an Artifact.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSource {
    /// The name by which images of the template call it, as `artifact://NAME`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Artifact.
    pub artifact_from: ObjectRef,
}

/// How the rollout is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadDeploymentStatus {
    /// The last generation that the controller acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state, one aspect each. `Available`: as many Workloads are available as `maxUnavailable` demands. `Progressing`:
    /// the rollout comes forward or is done. `Ready`: all Workloads are of the newest revision and available. Beside them, only
    /// while true: `Reconciling` or `Stalled`, and `ReplicaFailure` when Workloads cannot be created or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The WorkloadReplicaSet of the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_replica_set: Option<ObjectRef>,

    /// The WorkloadReplicaSet of the newest former revision that still has Workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_replica_set: Option<ObjectRef>,

    /// The counts once more, in wasmCloud's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaCounts>,

    /// Workloads that there are, of all revisions, without those that are being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub current_replicas: Option<i32>,

    /// Of those, the ones of the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub updated_replicas: Option<i32>,

    /// Workloads of all revisions that are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ready_replicas: Option<i32>,

    /// Workloads of all revisions that have been Ready for `spec.minReadySeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub available_replicas: Option<i32>,

    /// How many more must become available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub unavailable_replicas: Option<i32>,

    /// The labels of its Workloads, as a text; autoscalers read it through `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,

    /// How often the name of a new WorkloadReplicaSet was taken by something else; a part of such names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub collision_count: Option<i32>,

    /// When the rollout last came forward; `spec.progressDeadlineSeconds` counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
}
