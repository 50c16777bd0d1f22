//! `Host`: one agent, and what scheduling needs to know of it. Written by the agent itself.

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, schema};

/// What a host is, as far as it does not change while it runs.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "runtime.wasmcloud.dev",
    version = "v1alpha1",
    kind = "Host",
    namespaced,
    no_spec,
    status = "HostStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "wasm",
    selectable = ".hostId",
    doc = "A Host is an agent that runs Workloads, one on each node. Agents write their own; nobody needs to create one."
)]
#[serde(rename_all = "camelCase")]
pub struct HostFields {
    /// The id that `spec.hostId` of a Workload names: the name of the node.
    #[schemars(length(min = 1, max = 253))]
    pub host_id: String,

    /// Name or address at which the host is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,

    /// Port on which the host serves its workloads, by Host header and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub http_port: Option<i32>,

    /// A word for where the host is, for example a region; Workloads choose by it with `spec.environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub environment: Option<String>,
}

/// How a host is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Version of the agent. Example: `0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,

    /// The operating system. Example: `linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub os_name: Option<String>,

    /// The processor's architecture. Example: `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub os_arch: Option<String>,

    /// Version of the operating system's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub os_kernel: Option<String>,

    /// Share of the machine's processors in use, in percent. Example: `12.5`.
    #[serde(
        default,
        rename = "systemCPUUsage",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64))]
    pub system_cpu_usage: Option<String>,

    /// The machine's memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_memory_total: Option<i64>,

    /// The machine's free memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_memory_free: Option<i64>,

    /// Components on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_count: Option<i64>,

    /// Workloads on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_count: Option<i64>,

    /// When the agent last wrote this. Whether it is alive is told by its Lease, which is renewed more often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,

    /// The state, one aspect each: `Ready` is True while the host takes workloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// IP addresses at which the host serves, at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,

    /// What workloads may use in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Allocatable>,

    /// Interfaces that the host offers to components, and those that it calls on them. Example: `wasi:http/types@0.2.12`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub interfaces: Vec<String>,

    /// Digests of images that are on the host, the most recently used ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 128)), extend("x-kubernetes-list-type" = "atomic"))]
    pub images: Vec<String>,

    /// Changes whenever the machine is started anew.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub boot_id: Option<String>,
}

/// What workloads may use in all.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Allocatable {
    /// Memory: the agent's own limit less what it needs for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bytes")]
    pub memory: Option<Quantity>,
}
