//! The Kubernetes kinds, `runtime.wasmcloud.dev/v1alpha1`: what users write and what the agent reports.
//!
//! These types are the single source of the CRDs ([`crds`]), and they hold no behaviour. The schema is wasmCloud v2's, with
//! optional fields of ours beside it, so that a manifest for wasmCloud applies here unchanged. Bounds on lengths and lists are
//! ours as well: without them the API server refuses rules over lists as too expensive.
//!
//! Reading is lenient where writing is not: closed sets of words are texts here and enums in the schema only, so that one
//! stored object from another version cannot break the list of all.

mod admit;
mod artifact;
mod column;
mod component;
mod condition;
mod crd;
mod deployment;
mod host;
mod interface;
mod labels;
mod probe;
mod replica_set;
mod schema;
mod volume;
mod workload;
mod workload_status;

use std::ops::RangeInclusive;

pub use admit::{admit, unknown_fields};
pub use artifact::{Artifact, ArtifactSpec, ArtifactStatus};
pub use component::{
    Component, Environment, LocalResources, MemoryLimit, ObjectRef, Resources, Service, VolumeMount,
};
pub use condition::{Condition, condition_type};
pub use crd::{CrdError, crds, file_name, yaml};
pub use deployment::{
    ArtifactSource, WorkloadDeployment, WorkloadDeploymentSpec, WorkloadDeploymentStatus,
};
pub use host::{Allocatable, Host, HostFields, HostStatus};
pub use interface::HostInterface;
pub use labels::{annotation, label, label_value};
pub use probe::{GrpcProbe, HttpGetProbe, HttpHeader, Probe, TcpSocketProbe};
pub use replica_set::{
    ReplicaCounts, WorkloadReplicaSet, WorkloadReplicaSetSpec, WorkloadReplicaSetStatus,
    WorkloadTemplate,
};
pub use volume::{
    ConfigMapVolume, EphemeralVolume, HostPathVolume, KeyToPath, SecretVolume, Volume,
};
pub use workload::{Kubernetes, ServiceRef, Workload, WorkloadSpec};
pub use workload_status::{
    ComponentStatus, Endpoint, Running, State, Terminated, Timings, Waiting, WorkloadStatus,
};

/// The group of all our kinds.
pub const GROUP: &str = "runtime.wasmcloud.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// The ports of `status.servicePort`, which agents open for Services; the chart's NetworkPolicy lets them through.
pub const SERVICE_PORTS: RangeInclusive<u16> = 20_000..=29_999;

#[cfg(test)]
mod tests;
