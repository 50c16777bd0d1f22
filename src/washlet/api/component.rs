//! A component of a workload, the workload's service, and what either may use of its host.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probe, schema};

/// WebAssembly that is called and keeps nothing between calls.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// A name, unique in the workload; messages and logs use it. Example: `hello`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The image, `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`; without a tag or a digest it is `:latest`. With `washlet run`
    /// also `file:./hello.wasm`, relative to the YAML file. Example: `ghcr.io/acme/hello:v1`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// A Secret of this namespace with credentials for the image's registry, tried before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<ObjectRef>,

    /// When to ask the registry for an image that the host has already. `Always`: each time the workload starts; unchanged
    /// layers are not fetched again. `IfNotPresent`: only if the image was never resolved here. `Never`: not at all.
    /// Default: `Always` if the tag is `latest` and there is no digest, else `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = schema::words(&["", "Always", "IfNotPresent", "Never"])))]
    pub image_pull_policy: Option<String>,

    /// Instances kept ready between calls; calls beyond them get fresh ones. What one call leaves in an instance, the next one
    /// sees. Default: 0, and then every call gets a fresh instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pool_size: Option<i32>,

    /// Calls after which a kept instance is replaced by a fresh one. Default: 0, never. Only used with `poolSize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_invocations: Option<i32>,

    /// Calls that one kept instance serves at the same time; more than one is only useful to a component that awaits instead
    /// of blocking (WASI 0.3). Default: 0, which means one. Only used with `poolSize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_concurrency: Option<i32>,

    /// Kept instances that are made before the first call, and not given up when the component is idle. Default: 0. Only used with `poolSize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub reclaim_min_instances: Option<i32>,

    /// Seconds without a call after which kept instances above `reclaimMinInstances` are given up. Default: 0, never. Only
    /// used with `poolSize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub reclaim_window_seconds: Option<i32>,

    /// Instances at a time, kept ones included. Further calls wait for one, at most ten seconds and at most four times as many
    /// as there are instances, and are then answered 503 with `Retry-After`. Default: 0, a quarter of what the host allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_instances: Option<i32>,

    /// What the component may use: configuration, environment variables, hosts that it may call, volumes. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_resources: Option<LocalResources>,

    /// Limits of one instance of the component. Default: those of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Most seconds for one request, from its head to the end of the response; a request that takes longer is cut. Default:
    /// that of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub request_timeout_seconds: Option<i64>,

    /// Asks whether the component still works; after `failureThreshold` failures its kept instances are replaced. Default:
    /// not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,

    /// Asks whether the component can serve; while it cannot, the workload is not Ready. Default: it can once it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,

    /// Asks whether the component has started; until then the other probes wait. Default: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
}

/// A component that runs all the time, by its export `wasi:cli/run`.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The image, `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, as for components.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// A Secret of this namespace with credentials for the image's registry, tried before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<ObjectRef>,

    /// When to ask the registry for an image that the host has already: `Always`, `IfNotPresent` or `Never`, as for
    /// components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = schema::words(&["", "Always", "IfNotPresent", "Never"])))]
    pub image_pull_policy: Option<String>,

    /// How often the service is started again at most; then it stays down, and the workload is not Ready. 0: it is never started
    /// again. Default: no limit but `restartPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<i32>,

    /// What the service may use: configuration, environment variables, hosts that it may call, volumes. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_resources: Option<LocalResources>,

    /// Asks whether the service still works; after `failureThreshold` failures it is started anew. Default: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,

    /// Asks whether the service can serve; while it cannot, the workload is not Ready. Default: it can once it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,

    /// Asks whether the service has started; until then the other probes wait. Default: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
}

/// What a component may use of its host. Nothing is granted that is not named here.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LocalResources {
    /// Volumes of the workload that the component sees as directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_mounts: Vec<VolumeMount>,

    /// Environment variables of the component. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,

    /// Most that the component may execute for one request, or a service or job in one run, in units of about one WebAssembly
    /// instruction; then it is cut, always at the same instruction. Components that are linked into one share theirs. Default:
    /// not counted, which is faster. Not together with `maxConcurrency`. Example: `100000000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub fuel: Option<i64>,

    /// Values that the component reads by `wasi:config`; they win over those of a `wasi:config` entry of `hostInterfaces`.
    /// Example: `greeting: Hello`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::texts")]
    pub config: BTreeMap<String, String>,

    /// Hosts that the component may call by HTTP, and connect to by `wasi:sockets` (scheme `tcp`). `*` allows all; else `HOST`,
    /// `HOST:PORT`, `*.DOMAIN` (any depth below it, not the domain itself), each with an optional `SCHEME://` before it; never
    /// a path. Default: none, every call is denied. Example: `https://api.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_hosts: Vec<String>,

    /// Names that the component may look up by `wasi:sockets`: `*`, `*.DOMAIN`, `HOST`, or an IP address. Default: none.
    /// Separate from `allowedHosts`, which is about connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_ip_name_lookups: Vec<String>,

    /// Ports of the node's own loopback that the component may reach as `host.wasmcloud.internal`: `PORT`, `PORT/tcp` or
    /// `PORT/udp`. The host must allow it as well. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 9), regex(pattern = r"^[0-9]{1,5}(/(tcp|udp|TCP|UDP))?$")),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub allowed_host_loopback_ports: Vec<String>,
}

/// Environment variables from several places. Where two give the same name, Secrets win over ConfigMaps, those over the values
/// here, and later entries of a list over earlier ones.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Values given here. Example: `LOG_LEVEL: info`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::texts")]
    pub config: BTreeMap<String, String>,

    /// ConfigMaps of this namespace, each key of which is a value. They must exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config_from: Vec<ObjectRef>,

    /// Secrets of this namespace, each key of which is a value; it must be UTF-8. They must exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub secret_from: Vec<ObjectRef>,
}

/// Where a component sees a volume.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of an entry of `spec.volumes`.
    #[schemars(length(max = 63))]
    pub name: String,

    /// Absolute path at which the component sees it. Example: `/data`.
    #[schemars(length(max = 1024))]
    pub mount_path: String,

    /// Whether the component may only read. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// An object of the workload's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ObjectRef {
    /// Its name. An empty name stands for no object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub name: String,
}

/// What may be used at most.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// The limits. Default: those of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<MemoryLimit>,
}

/// A limit of memory.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct MemoryLimit {
    /// Most linear memory, in bytes, with an optional unit (`Ki`, `Mi`, `Gi`, or `k`, `M`, `G`): of one instance for a
    /// component, of all instances together for a workload. Growing beyond it fails. Example: `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bytes")]
    pub memory: Option<Quantity>,
}
