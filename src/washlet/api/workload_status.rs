//! What the agent and the controller report about a workload.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// What is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// The last generation that the agent acted on. While it is behind `metadata.generation`, the newest change was not seen
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state, one aspect each: `Scheduled` (if the controller chose the host), `Accepted`, `ConfigResolved`,
    /// `ImagesPulled`, `Linked`, `Ready`; beside them `Reconciling` or `Stalled` while a generation is not Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The host that the workload is on: the choice of the controller, or the report of the host that `spec.hostId` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host_id: Option<String>,

    /// The environment of that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub environment: Option<String>,

    /// The name of this workload on the host: the UID of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub workload_id: Option<String>,

    /// The components of the observed generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub components: Vec<ComponentStatus>,

    /// When each step of the observed generation's start was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,

    /// Port on which every host serves this workload with any Host header, if `spec.kubernetes.service` asks for it. Set by
    /// the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub service_port: Option<i32>,

    /// Where the workload answers. Set by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<Endpoint>,
}

/// An address at which a workload answers.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// IP address.
    #[schemars(length(max = 64))]
    pub address: String,
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The host behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host_id: Option<String>,
}

/// The state of one component.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Its name in `spec.components`; the service is called `service`, with dashes after it if a component is called so.
    #[schemars(length(max = 253))]
    pub name: String,

    /// Its image as the spec writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub image: String,

    /// Digest of the WebAssembly that was pulled, `sha256:…`: what runs, whatever the tag points at now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,

    /// What it does now: exactly one of waiting, running and terminated.
    #[serde(default)]
    pub state: State,

    /// How often it was started again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub restart_count: i32,

    /// How it ended the last time, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_termination: Option<Terminated>,
}

/// One of three.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// It does not run yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// It runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// It has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// Why a component does not run yet.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Waiting {
    /// A word for programs, for example `Pulling` or `ImageNotFound`.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// A sentence for people, if there is more to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// Since when a component runs.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// When it began to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
}

/// How a component ended.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    /// A word for programs: `Completed`, `Error` (it ended with an exit code of its own), `Trapped`, `MemoryLimit`, `OutOfFuel`,
    /// `HostError`; `Stopped` if its workload was.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// 0 if it ended well; the code that it exited with; 1 for every other end. Never a number for a signal.
    pub exit_code: i32,
    /// A sentence for people, if there is more to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub message: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What the workload's annotation `kubectl.kubernetes.io/restartedAt` said when it was started: a command that has ended
    /// for good is run again when it says something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub restarted_at: Option<String>,
}

/// When each step of a start was done, to the microsecond.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// The agent saw the generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<MicroTime>,
    /// The bytes of all components were on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<MicroTime>,
    /// All components were compiled, or loaded from the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<MicroTime>,
    /// All that they import was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked: Option<MicroTime>,
    /// The workload answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<MicroTime>,
    /// From `assigned` to `started`, for people. Example: `12.4ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub total: Option<String>,
}
