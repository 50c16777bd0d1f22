//! The embedding API's plain data: what [`HostApi`](crate::host::HostApi) takes and gives.
//!
//! [`Workload`] converts into [`spec::Workload`], the one form that the host acts on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    fault::{Fault, Reason, Stage},
    spec::{self, AllowedHost},
    wit::InterfaceId,
};

pub use crate::spec::{Interface as WitInterface, Source};

/// A workload: components that start and stop together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    /// The namespace that it belongs to; shown in logs and status.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Anything that the embedder wants to keep with it; the host does not read it.
    pub annotations: HashMap<String, String>,
    /// A long-running component. Not supported yet: a workload with one is refused.
    pub service: Option<Service>,
    /// Its components, by unique name.
    pub components: Vec<Component>,
    /// Configuration of the host's interfaces, for example the route of an HTTP component.
    pub host_interfaces: Vec<WitInterface>,
    /// Volumes. Not supported yet: a workload with one is refused.
    pub volumes: Vec<Volume>,
}

/// A component of a workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Component {
    /// Unique in its workload.
    pub name: String,
    /// Where its bytes come from.
    pub source: Source,
    /// What it is given.
    pub local_resources: LocalResources,
    /// Most time for one request; none means the server's default.
    pub request_timeout: Option<Duration>,
}

/// A long-running component of a workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Where its bytes come from.
    pub source: Source,
    /// What it is given.
    pub local_resources: LocalResources,
    /// How often it is restarted.
    pub max_restarts: u32,
}

/// What a component is given beyond its imports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalResources {
    /// Most linear memory of one instance, in bytes; none means the engine's limit.
    pub memory_limit: Option<u64>,
    /// Values of `wasi:config`, over those of the interface.
    pub config: HashMap<String, String>,
    /// Environment variables.
    pub environment: HashMap<String, String>,
    /// Hosts that it may call, in the grammar of [`AllowedHost`]; empty denies all.
    pub allowed_hosts: Vec<String>,
}

/// Storage that components may mount.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    /// Unique in its workload.
    pub name: String,
}

/// Asks a host to start a workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkloadStartRequest {
    /// What to start.
    pub workload: Workload,
}

/// How a workload is.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadStatus {
    /// The id that the host gave it, or that the caller chose.
    pub workload_id: String,
    /// Its state.
    pub state: WorkloadState,
}

/// The state of a workload.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkloadState {
    /// This stage is in hand.
    Starting(Stage),
    /// It answers.
    Running,
    /// It does not answer, and why.
    Failed(Fault),
    /// It finishes what is in flight.
    Stopping,
}

/// What a host is and holds.
#[derive(Debug, Clone, PartialEq)]
pub struct HostHeartbeat {
    /// Its name.
    pub id: String,
    /// This library's version.
    pub version: String,
    /// When it was started.
    pub started_at: SystemTime,
    /// Processor architecture, as Rust names it: `x86_64`.
    pub os_arch: String,
    /// Operating system, as Rust names it: `linux`.
    pub os_name: String,
    /// Workloads that it knows.
    pub workload_count: u64,
    /// Components of these workloads.
    pub component_count: u64,
    /// What components may import.
    pub offers: Vec<InterfaceId>,
}

impl Workload {
    /// The workload as the host acts on it.
    ///
    /// # Errors
    /// [`Fault`] with reason `InvalidSpec` or `UnsupportedSpec`, naming the field.
    pub fn into_spec(self, id: spec::WorkloadId) -> Result<spec::Workload, Fault> {
        if self.service.is_some() {
            return Err(unsupported("service"));
        }
        if !self.volumes.is_empty() {
            return Err(unsupported("volumes"));
        }
        let mut components: Vec<spec::Component> = Vec::with_capacity(self.components.len());
        for (index, component) in self.components.into_iter().enumerate() {
            if component.name.is_empty() {
                return Err(invalid(format!(
                    "components[{index}].name is empty; give each component a name"
                )));
            }
            if components.iter().any(|c| *c.name == *component.name) {
                return Err(invalid(format!(
                    "components[{index}].name \"{}\" is taken; names are unique",
                    component.name
                )));
            }
            components.push(component.into_spec(index)?);
        }
        Ok(spec::Workload {
            owner: id.clone(),
            id,
            namespace: self.namespace,
            name: self.name,
            generation: 1,
            created: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| d.as_secs().cast_signed()),
            components,
            interfaces: self.host_interfaces,
            grace: spec::DEFAULT_GRACE,
            service_port: None,
            behind_service: false,
            routes_withheld: None,
            stamp: 0,
        })
    }
}

impl Component {
    fn into_spec(self, index: usize) -> Result<spec::Component, Fault> {
        let resources = self.local_resources;
        let allowed_hosts = resources
            .allowed_hosts
            .iter()
            .map(|text| {
                text.parse::<AllowedHost>()
                    .map_err(|e| invalid(format!("components[{index}].allowed_hosts: {e}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(spec::Component {
            name: Arc::from(self.name),
            source: self.source,
            config: sorted(resources.config),
            environment: sorted(resources.environment),
            allowed_hosts,
            memory_limit: resources.memory_limit,
            request_timeout: self.request_timeout,
        })
    }
}

fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn invalid(message: String) -> Fault {
    Fault::new(Stage::Accept, Reason::InvalidSpec, message)
}

fn unsupported(field: &str) -> Fault {
    Fault::new(
        Stage::Accept,
        Reason::UnsupportedSpec,
        format!("{field} is not supported by this version; remove it"),
    )
}
