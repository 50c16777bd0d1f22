//! The embedding API's plain data: what [`HostApi`](crate::host::HostApi) takes and gives.
//!
//! [`Workload`] converts into [`spec::Workload`], the one form that the host acts on.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    fault::{Fault, Reason, Stage},
    spec::{self, AllowedHost, AllowedName, LoopbackPort},
    wit::InterfaceId,
};

pub use crate::spec::{
    Files, Interface as WitInterface, Mount, RestartPolicy, Reuse, Source, Volume, VolumeSource,
};

/// A workload: components that start and stop together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    /// The namespace that it belongs to; shown in logs and status.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Anything that the embedder wants to keep with it; the host does not read it.
    pub annotations: HashMap<String, String>,
    /// A long-running component, which exports `wasi:cli/run`.
    pub service: Option<Service>,
    /// Its components, by unique name.
    pub components: Vec<Component>,
    /// Configuration of the host's interfaces, for example the route of an HTTP component.
    pub host_interfaces: Vec<WitInterface>,
    /// Directories that components may mount, by unique name.
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
    /// How its instances are kept for further requests; none gives each request one of its own.
    pub reuse: Option<Reuse>,
    /// Most instances at a time; none means the server's default.
    pub max_instances: Option<NonZeroU32>,
}

/// A long-running component of a workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Where its bytes come from.
    pub source: Source,
    /// What it is given.
    pub local_resources: LocalResources,
    /// How often it is started again at most, after it ended; none means as often as the policy says.
    pub max_restarts: Option<u32>,
    /// Whether it is started again; none means always. Waits grow from nothing over 10 s to 5 minutes.
    pub restart_policy: Option<RestartPolicy>,
}

/// What a component is given beyond its imports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalResources {
    /// Most linear memory of one instance, in bytes; none means the engine's limit.
    pub memory_limit: Option<u64>,
    /// Most that it may execute for one request, or in one run, in units of about an instruction; none means that nobody
    /// counts. What has fuel has no [`Reuse::max_concurrency`] above one.
    pub fuel: Option<NonZeroU64>,
    /// Values of `wasi:config`, over those of the interface.
    pub config: HashMap<String, String>,
    /// Environment variables.
    pub environment: HashMap<String, String>,
    /// Hosts that it may call, in the grammar of [`AllowedHost`]; empty denies all.
    pub allowed_hosts: Vec<String>,
    /// The volumes that it sees as directories.
    pub volume_mounts: Vec<Mount>,
    /// Names that it may look up by `wasi:sockets`, in the grammar of [`AllowedName`]; empty denies all.
    pub allowed_ip_name_lookups: Vec<String>,
    /// Ports of the host's own loopback that it may connect to as `host.wasmcloud.internal`, in the grammar of
    /// [`LoopbackPort`]; empty denies all.
    pub allowed_host_loopback_ports: Vec<String>,
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
    /// It has done all that it is there for: its jobs have ended well.
    Completed,
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
        for (index, volume) in self.volumes.iter().enumerate() {
            let mut earlier = self.volumes.iter().take(index);
            if volume.name.is_empty() || earlier.any(|other| other.name == volume.name) {
                return Err(invalid(format!(
                    "volumes[{index}].name \"{}\" is empty or taken; names are unique",
                    volume.name
                )));
            }
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
            components.push(component.into_spec(&format!("components[{index}]"), &self.volumes)?);
        }
        let mut commands = spec::Commands::default();
        if let Some(service) = self.service {
            commands.restart_policy = service.restart_policy;
            let name = spec::service_name(components.iter().map(|c| &*c.name));
            components.push(service.into_spec(name, &self.volumes)?);
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
            volumes: self.volumes,
            memory_limit: None,
            grace: spec::DEFAULT_GRACE,
            service_port: None,
            behind_service: false,
            routes_withheld: None,
            stamp: 0,
            commands,
        })
    }
}

impl Component {
    fn into_spec(self, path: &str, volumes: &[Volume]) -> Result<spec::Component, Fault> {
        let resources = self.local_resources;
        let mounts = &resources.volume_mounts;
        if let Some((mount, field, problem)) = spec::mount_problems(volumes, mounts).first() {
            return Err(invalid(format!(
                "{path}.local_resources.volume_mounts[{mount}].{field}: {problem}"
            )));
        }
        let at = |field: &str| format!("{path}.{field}");
        if let (Some(_), Some(reuse)) = (resources.fuel, self.reuse)
            && reuse.max_concurrency.get() > 1
        {
            return Err(invalid(format!(
                "{path}.reuse.max_concurrency is {} and {path}.local_resources.fuel is given, but fuel is counted for an \
                 instance; let it serve one request at a time",
                reuse.max_concurrency
            )));
        }
        let allowed_hosts = parsed::<AllowedHost>(&at("allowed_hosts"), &resources.allowed_hosts)?;
        let allowed_names = parsed::<AllowedName>(
            &at("allowed_ip_name_lookups"),
            &resources.allowed_ip_name_lookups,
        )?;
        let loopback_ports = parsed::<LoopbackPort>(
            &at("allowed_host_loopback_ports"),
            &resources.allowed_host_loopback_ports,
        )?;
        Ok(spec::Component {
            name: Arc::from(self.name),
            source: self.source,
            config: sorted(resources.config),
            environment: sorted(resources.environment),
            allowed_hosts,
            allowed_names,
            loopback_ports,
            memory_limit: resources.memory_limit,
            fuel: resources.fuel,
            request_timeout: self.request_timeout,
            reuse: self.reuse,
            max_instances: self.max_instances,
            mounts: resources.volume_mounts,
            role: spec::Role::Component,
        })
    }
}

impl Service {
    fn into_spec(self, name: String, volumes: &[Volume]) -> Result<spec::Component, Fault> {
        let component = Component {
            name,
            source: self.source,
            local_resources: self.local_resources,
            ..Component::default()
        };
        Ok(spec::Component {
            role: spec::Role::Service {
                max_restarts: self.max_restarts,
            },
            ..component.into_spec("service", volumes)?
        })
    }
}

/// The entries of one list, or what is wrong with the first wrong one.
fn parsed<T: FromStr<Err: fmt::Display>>(field: &str, texts: &[String]) -> Result<Vec<T>, Fault> {
    let one = |(index, text): (usize, &String)| {
        text.parse()
            .map_err(|error| invalid(format!("{field}[{index}]: {error}")))
    };
    texts.iter().enumerate().map(one).collect()
}

fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn invalid(message: String) -> Fault {
    Fault::new(Stage::Accept, Reason::InvalidSpec, message)
}
