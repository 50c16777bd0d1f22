//! Directories that components can mount.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// A directory, from one source; with no source it is ephemeral.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "[has(self.ephemeral), has(self.hostPath), has(self.configMap), has(self.secret)].filter(x, x).size() <= 1",
    "a volume has at most one source: ephemeral, hostPath, configMap or secret",
)]))]
pub struct Volume {
    /// A name, unique in the workload, which `volumeMounts` use.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// An empty directory that lives as long as the workload. This is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralVolume>,

    /// A directory of the node. The host must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPathVolume>,

    /// The keys of a ConfigMap as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,

    /// The keys of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
}

/// An empty directory.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralVolume {
    /// Most that it holds, in bytes, with an optional unit (`Ki`, `Mi`, `Gi`, or `k`, `M`, `G`): the sizes of its files, and
    /// 4Ki for each file, directory and link. What would go beyond fails with `insufficient-space`; a change takes effect
    /// without a restart. Default: 1Gi. Example: `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bytes")]
    pub size_limit: Option<Quantity>,
}

/// A directory of the node.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HostPathVolume {
    /// Absolute path on the node, below one of the directories that the agent was started with. Example: `/srv/models`.
    #[schemars(length(max = 4096))]
    pub path: String,
}

/// A ConfigMap as files.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfigMapVolume {
    /// Name of the ConfigMap, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The keys to show, and the file of each. Default: all keys, each as a file of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<KeyToPath>,

    /// Whether the workload may run without the ConfigMap. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A Secret as files.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolume {
    /// Name of the Secret, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,

    /// The keys to show, and the file of each. Default: all keys, each as a file of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<KeyToPath>,

    /// Whether the workload may run without the Secret. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// One key as one file.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct KeyToPath {
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,

    /// Path of the file in the volume; relative, without `..`.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}
