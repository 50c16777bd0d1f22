//! Conditions, as all of Kubernetes has them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The types of conditions. Each is positive: True is good, save those that are present only when true.
pub mod condition_type {
    /// The controller has chosen a host; absent on a workload that names its host itself. Written by the controller alone.
    pub const SCHEDULED: &str = "Scheduled";
    /// Present only while False: another workload of the cluster has a route that this one wants. Written by the controller alone.
    pub const ROUTED: &str = "Routed";
    /// Whether endpoints are published for the Service that the workload names; absent if it names none. Written by the
    /// controller alone.
    pub const SERVICE_PUBLISHED: &str = "ServicePublished";
    /// The specification makes sense, and this version does all that it asks for.
    pub const ACCEPTED: &str = "Accepted";
    /// All ConfigMaps and Secrets that it names were read.
    pub const CONFIG_RESOLVED: &str = "ConfigResolved";
    /// The bytes of all components are on the host.
    pub const IMAGES_PULLED: &str = "ImagesPulled";
    /// All components are compiled, and all that they import is there.
    pub const LINKED: &str = "Linked";
    /// The workload answers through its host.
    pub const READY: &str = "Ready";
    /// Present only while a generation is worked on and not there yet.
    pub const RECONCILING: &str = "Reconciling";
    /// Present only while a generation cannot be had without a change to it or to something that it names.
    pub const STALLED: &str = "Stalled";
    /// Of a deployment: as many workloads are available as `maxUnavailable` demands.
    pub const AVAILABLE: &str = "Available";
    /// Of a deployment: the rollout comes forward or is done.
    pub const PROGRESSING: &str = "Progressing";
    /// Of a deployment or a set, present only while workloads cannot be created or deleted.
    pub const REPLICA_FAILURE: &str = "ReplicaFailure";
}

/// One aspect of an object's state; the same shape as `metav1.Condition`, but only `type` and `status` are required, since
/// other controllers write theirs in here too.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect, for example `Ready`. A workload's own, in order: `Accepted`, `ConfigResolved`, `ImagesPulled`, `Linked`,
    /// `Ready`.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,

    /// `True`, `False`, or `Unknown` while nothing is known yet.
    #[schemars(extend("enum" = schema::words(&["True", "False", "Unknown"])))]
    pub status: String,

    /// A word for programs: why the status is what it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,

    /// A sentence for people: what happened, to what, and what to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub message: String,

    /// When the status last changed from one of its values to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,

    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Whether the status is `True`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// The condition of a type, if it is there.
    #[must_use]
    pub fn find<'a>(conditions: &'a [Self], type_: &str) -> Option<&'a Self> {
        conditions.iter().find(|c| c.type_ == type_)
    }
}
