//! An entry of `hostInterfaces`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ObjectRef, schema};

/// Interfaces of one WIT package that the workload uses, and their configuration.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostInterface {
    /// Namespace of the WIT package: `wasi` in `wasi:http`.
    #[schemars(length(max = 128))]
    pub namespace: String,

    /// Name of the WIT package: `http` in `wasi:http`.
    #[schemars(length(max = 128))]
    pub package: String,

    /// Interfaces of the package, at least one. For `wasi:http`, `incoming-handler` or `handler` makes the workload serve
    /// HTTP; either word does, whichever version the component has.
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)), extend("x-kubernetes-list-type" = "atomic"))]
    pub interfaces: Vec<String>,

    /// Version of the package, `MAJOR.MINOR.PATCH`. Default: whichever the components use. Example: `0.2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,

    /// Tells several entries of one package apart, for example two key-value stores. All entries of a package but one need a
    /// name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^([a-z0-9][a-z0-9-]*)?$"))]
    pub name: Option<String>,

    /// Configuration; which keys there are depends on the package, and an unknown key is an error. For `wasi:http`: `host`,
    /// the host name to answer (exact, or `*.DOMAIN`; absent: every name that nobody else has), and `path`, the prefix of
    /// paths (default `/`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::texts")]
    pub config: BTreeMap<String, String>,

    /// ConfigMaps of this namespace whose keys are added to `config` and win over it; later ones win. They must exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config_from: Vec<ObjectRef>,

    /// Secrets of this namespace whose keys are added to `config` and win over it and over ConfigMaps; later ones win. They
    /// must exist, and their values must be UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub secret_from: Vec<ObjectRef>,
}
