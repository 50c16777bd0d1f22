//! `Workload`: components that live and die together on one host.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Component, HostInterface, ObjectRef, Resources, Service, Volume, WorkloadStatus, schema,
};

/// What should run: components, the interfaces of the host that they use, and where they may run.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "runtime.wasmcloud.dev",
    version = "v1alpha1",
    kind = "Workload",
    namespaced,
    status = "WorkloadStatus",
    derive = "Default",
    derive = "PartialEq",
    shortname = "ww",
    category = "all",
    category = "wasm",
    selectable = ".spec.hostId",
    selectable = ".status.hostId",
    doc = "A Workload runs WebAssembly components together on one host. `kubectl get ww` shows whether it answers, and if not, why."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "!has(self.components) || self.components.all(c, !has(c.localResources) || !has(c.localResources.volumeMounts) \
     || c.localResources.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name)))",
    "every volumeMount of a component must name an entry of spec.volumes",
), schema::rule(
    "!has(self.service) || !has(self.service.localResources) || !has(self.service.localResources.volumeMounts) \
     || self.service.localResources.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
    "every volumeMount of the service must name an entry of spec.volumes",
)]))]
pub struct WorkloadSpec {
    /// Labels that a host must have, compared with the labels of its Node and then with its own. All must match. Only used
    /// while `hostId` is empty. Example: `hostgroup: default`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub host_selector: BTreeMap<String, String>,

    /// The host to run on; its id is the name of its node. Empty (the default): the controller chooses a host and writes it
    /// into `status.hostId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host_id: Option<String>,

    /// Only hosts of this environment come into question, for example a region. Empty (the default): any. Only used while
    /// `hostId` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub environment: Option<String>,

    /// The components: WebAssembly that is called (by HTTP, by messages) and keeps nothing between calls. All of them run on
    /// the same host. Names are unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub components: Vec<Component>,

    /// A component that runs all the time, by its export `wasi:cli/run`. Optional. Without one, a component that can only be
    /// run is a job: it runs to its end, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,

    /// What the workload uses of the host beyond WASI's base, and how it is configured. The base (clocks, random, io, …),
    /// config, logging and outgoing HTTP need no entry; serving HTTP and every backend do. Example: an entry for `wasi:http`
    /// with `config.host` routes that host name to the component that exports an HTTP handler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        schema::rule(
            "self.all(a, self.exists_one(b, a.__namespace__ == b.__namespace__ && a.__package__ == b.__package__ \
             && (has(a.name) ? a.name : '') == (has(b.name) ? b.name : '') \
             && (has(a.version) ? a.version : '') == (has(b.version) ? b.version : '')))",
            "two entries have the same namespace, package, name and version; merge them",
        ),
        schema::rule(
            "self.all(a, (has(a.name) && a.name != '') || self.exists_one(b, (!has(b.name) || b.name == '') \
             && a.__namespace__ == b.__namespace__ && a.__package__ == b.__package__))",
            "only one entry of a namespace:package may have no name; give the others a name",
        ),
    ]))]
    pub host_interfaces: Vec<HostInterface>,

    /// Directories that components can mount with `localResources.volumeMounts`. Names are unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,

    /// How the workload appears to the rest of the cluster. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,

    /// Secrets of this namespace with credentials for the registries of all components, tried after a component's own
    /// `imagePullSecret`. A secret that does not exist is passed over, and named if the pull fails. Types:
    /// `kubernetes.io/dockerconfigjson`, `kubernetes.io/dockercfg`, or Opaque with the keys `username` and `password`, or
    /// `token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub image_pull_secrets: Vec<ObjectRef>,

    /// A ServiceAccount of this namespace whose `imagePullSecrets` are tried last. They are read when an image is pulled.
    /// The workload gets no token and no permission from it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,

    /// Limits of the workload as a whole, over all its components and their instances. Default: those of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// What happens when the service or a job ends: `Always` starts it again, `OnFailure` only if it failed, `Never` not at
    /// all; the first time at once, then after 10, 20, 40, 80, 160 and at most 300 seconds, and anew after ten good minutes.
    /// Components that are called need no restart: each call may get a fresh instance. Default: `Always` for a service,
    /// `OnFailure` for jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = schema::words(&["Always", "OnFailure", "Never"])))]
    pub restart_policy: Option<String>,

    /// Seconds that requests in flight are given to finish when the workload stops or is replaced; what still runs then is
    /// cut. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub termination_grace_period_seconds: Option<i64>,
}

/// How a workload appears to the rest of the cluster.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Kubernetes {
    /// A Service that leads to the workload. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
}

/// A Service in the workload's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ServiceRef {
    /// Name of an existing Service of this namespace, without a selector. The controller publishes EndpointSlices for it, so
    /// that its ClusterIP, an Ingress or a Gateway reach the workload with any Host header. A `wasi:http` entry without `host`
    /// and `path` then asks for no route on the hosts' common port.
    #[schemars(length(max = 253))]
    pub name: String,
}
