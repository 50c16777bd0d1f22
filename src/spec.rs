//! What should run: a workload's desired state, already validated, as plain data.
//!
//! Nothing here does I/O, and nothing here knows Kubernetes: the Kubernetes agent, `washlet run` and the embedding API all
//! convert into these types, and the host acts on nothing else.

mod command;
mod credential;
mod hosts;
mod image;
mod sockets;
mod volume;

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use semver::Version;

pub use command::{Commands, Ended, Exit, Finished, RestartPolicy, Role};
pub use credential::{Credential, RegistryCredential, Secret};
pub use hosts::{
    AllowedHost, BlockedNetwork, BlockedRange, ParseHostError, ParseNetworkError, Prohibited,
    address_of, blocked, prohibited,
};
pub use image::{Digest, ImageRef, ParseImageError, PullPolicy};
pub use sockets::{AllowedName, LoopbackPort, ParseSocketsError, Protocol, is_name};
pub use volume::{
    DEFAULT_VOLUME_SIZE, Files, Mount, Volume, VolumeSource, is_plain, mount_problems, normal,
};

/// Uniquely names a workload for as long as it exists: a Kubernetes object's UID, or an id that the embedder chose.
pub type WorkloadId = Arc<str>;

/// Time that requests in flight are given to finish when a workload stops, unless it says otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A workload: components that live and die together on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Its identity. A changed workload keeps its id; a deleted and recreated one has another.
    pub id: WorkloadId,
    /// Kubernetes namespace, or the embedder's.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
    /// The version of the specification that this state was made from; only compared, never interpreted.
    pub generation: i64,
    /// When the workload was created, in seconds since the Unix epoch: the oldest claim to a route wins, of those of one second
    /// the first by namespace and name.
    pub created: i64,
    /// Identity of the root owner. Workloads of one owner (replicas) share their routes; by default the workload's own id.
    pub owner: Arc<str>,
    /// The components, by unique name; the service among them.
    pub components: Vec<Component>,
    /// Configuration of the host's interfaces for this workload.
    pub interfaces: Vec<Interface>,
    /// Directories that the components may mount, by unique name.
    pub volumes: Vec<Volume>,
    /// Most linear memory of all instances of the workload together, in bytes; none means no limit but each instance's own.
    pub memory_limit: Option<u64>,
    /// Time that requests in flight are given to finish when the workload stops.
    pub grace: Duration,
    /// A port of the server's address at which the workload answers whatever the Host header is, beside its routes. Workloads
    /// of one port share it.
    pub service_port: Option<u16>,
    /// The workload is reached through a Service: an entry without host and path then asks for no route, rather than for every
    /// request that nobody else has.
    pub behind_service: bool,
    /// Why the workload may not have its routes, if it may not: somebody on another host has one of them.
    pub routes_withheld: Option<Arc<str>>,
    /// Changes when the workload should start anew though nothing else of it changed: because a file did, or because somebody
    /// asked for it.
    pub stamp: u64,
    /// How its commands, a service or jobs, are run.
    pub commands: Commands,
}

/// One component of a workload. Its `Debug` shows the keys of its configuration, never a value: some come from Secrets.
#[derive(Clone, PartialEq)]
pub struct Component {
    /// Unique in its workload.
    pub name: Arc<str>,
    /// Where its bytes come from.
    pub source: Source,
    /// Values of `wasi:config` for this component, over those of the interface.
    pub config: BTreeMap<String, String>,
    /// Environment variables that the guest sees.
    pub environment: BTreeMap<String, String>,
    /// Hosts that the component may call; empty denies all.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Names that the component may look up by `wasi:sockets`; empty denies all.
    pub allowed_names: Vec<AllowedName>,
    /// Ports of the host's own loopback that the component may connect to; empty denies all.
    pub loopback_ports: Vec<LoopbackPort>,
    /// Most linear memory of one instance, in bytes; none means the engine's limit.
    pub memory_limit: Option<u64>,
    /// Most that it may execute for one request, or in one run, in units of about an instruction; none means that nobody
    /// counts. Instances of a component with fuel serve one request at a time.
    pub fuel: Option<NonZeroU64>,
    /// Most time for one request, from its head to the end of the response; none means the server's default.
    pub request_timeout: Option<Duration>,
    /// The volumes that it sees.
    pub mounts: Vec<Mount>,
    /// How its instances are kept for further requests; none gives each request one of its own.
    pub reuse: Option<Reuse>,
    /// Most instances at a time; none means the server's default.
    pub max_instances: Option<NonZeroU32>,
    /// What it is to the workload.
    pub role: Role,
}

/// How instances serve more than one request. State in them then outlives a request, and one request can see what another
/// one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Instances that are kept. Further requests at the same time get instances of their own.
    pub pool_size: NonZeroU32,
    /// Requests after which an instance is replaced; none means never.
    pub max_invocations: Option<NonZeroU32>,
    /// Requests that one instance serves at the same time, if its component can: one that blocks (WASI 0.2) serves one.
    pub max_concurrency: NonZeroU32,
    /// Instances that are made ahead of requests, and kept when nobody asks for them.
    pub min_instances: u32,
    /// Time without a request after which an instance beyond `min_instances` is given up; none means never.
    pub idle: Option<Duration>,
}

/// Where a component's bytes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The bytes themselves.
    Bytes(Bytes),
    /// A file on the host, read when the component is fetched.
    File(PathBuf),
    /// An image in an OCI registry.
    Image(Image),
}

/// An image in a registry, and how to pull it.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The reference, with its defaults filled in.
    pub reference: ImageRef,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Credentials to try, in order. Those that do not match the reference are skipped.
    pub credentials: Vec<RegistryCredential>,
    /// Pull secrets that could not be used, each with the reason; named in the error if the pull fails.
    pub unusable_secrets: Vec<String>,
}

/// The configuration of one interface that the host offers or serves, for one workload. Its `Debug` shows the keys of its
/// configuration, never a value: some come from Secrets.
#[derive(Clone, Default, PartialEq)]
pub struct Interface {
    /// `wasi` in `wasi:http`.
    pub namespace: String,
    /// `http` in `wasi:http`.
    pub package: String,
    /// Interfaces of the package, for example `incoming-handler`.
    pub interfaces: Vec<String>,
    /// The version, if the workload names one.
    pub version: Option<Version>,
    /// Tells several backends of one package apart.
    pub name: Option<String>,
    /// Keys that only the plugin understands, merged inline < ConfigMaps < Secrets.
    pub config: BTreeMap<String, String>,
}

impl Workload {
    /// Whether a workload that runs as `self` already runs as `other` says: only what a running workload does not feel
    /// differs (its generation, and credentials for pulls that are done), or what it takes over as it runs (where its
    /// traffic comes from, the content of files in its volumes and how much these may hold, and whether its commands are
    /// held).
    #[must_use]
    pub fn runs_like(&self, other: &Self) -> bool {
        let felt = |w: &Self| {
            let mut felt = w.without_what_follows();
            felt.generation = 0;
            for component in &mut felt.components {
                if let Source::Image(image) = &mut component.source {
                    image.credentials.clear();
                    image.unusable_secrets.clear();
                }
            }
            felt
        };
        felt(self) == felt(other)
    }

    /// Whether what was done to start a workload as `self` says serves to start it as `other` says: they differ at most in
    /// what a running one takes over.
    #[must_use]
    pub fn starts_like(&self, other: &Self) -> bool {
        self.without_what_follows() == other.without_what_follows()
    }

    /// Without what a running workload takes over as it changes.
    fn without_what_follows(&self) -> Self {
        let mut rest = Self {
            service_port: None,
            routes_withheld: None,
            commands: Commands {
                restart_policy: self.commands.restart_policy,
                ..Commands::default()
            },
            ..self.clone()
        };
        for volume in &mut rest.volumes {
            match &mut volume.source {
                VolumeSource::Files(files) => *files = Files::default(),
                VolumeSource::Ephemeral { size_limit } => *size_limit = None,
                VolumeSource::HostPath(_) => {}
            }
        }
        rest
    }

    /// The component that runs for as long as the workload does, if it has one.
    #[must_use]
    pub fn service(&self) -> Option<&Component> {
        self.components.iter().find(|c| c.is_service())
    }

    /// Whether the same workload may get other bytes later, without being changed itself: a tag can be moved, a file written.
    #[must_use]
    pub fn may_change_at_source(&self) -> bool {
        self.components
            .iter()
            .any(|component| match &component.source {
                Source::Bytes(_) => false,
                Source::File(_) => true,
                Source::Image(image) => {
                    image.reference.digest().is_none() && image.policy != PullPolicy::Never
                }
            })
    }
}

/// A name for the service of a workload with these components: `service`, unless one of them is called so.
#[must_use]
pub fn service_name<'a>(components: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut name = "service".to_owned();
    while components.clone().any(|taken| taken == name) {
        name.push('-');
    }
    name
}

impl Component {
    /// Whether it is the workload's service.
    #[must_use]
    pub const fn is_service(&self) -> bool {
        matches!(self.role, Role::Service { .. })
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Source {
    /// The source as a user would write it, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{} bytes given in memory", bytes.len()),
            Self::File(path) => format!("file {}", path.display()),
            Self::Image(image) => format!("image {}", image.reference),
        }
    }
}

impl Interface {
    /// Whether this entry configures the package `namespace:package`.
    #[must_use]
    pub fn is(&self, namespace: &str, package: &str) -> bool {
        self.namespace == namespace && self.package == package
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name)
            .field("source", &self.source)
            .field("config", &self.config.keys())
            .field("environment", &self.environment.keys())
            .field("allowed_hosts", &self.allowed_hosts)
            .field("allowed_names", &self.allowed_names)
            .field("loopback_ports", &self.loopback_ports)
            .field("memory_limit", &self.memory_limit)
            .field("fuel", &self.fuel)
            .field("request_timeout", &self.request_timeout)
            .field("reuse", &self.reuse)
            .field("max_instances", &self.max_instances)
            .field("mounts", &self.mounts)
            .field("role", &self.role)
            .finish()
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interface")
            .field("namespace", &self.namespace)
            .field("package", &self.package)
            .field("interfaces", &self.interfaces)
            .field("version", &self.version)
            .field("name", &self.name)
            .field("config", &self.config.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_configuration_are_not_printed() {
        let config: BTreeMap<String, String> = [("key".into(), "s3cret".into())].into();
        let component = Component {
            name: "app".into(),
            source: Source::default(),
            config: config.clone(),
            environment: config.clone(),
            allowed_hosts: Vec::new(),
            allowed_names: Vec::new(),
            loopback_ports: Vec::new(),
            memory_limit: None,
            fuel: None,
            request_timeout: None,
            reuse: None,
            max_instances: None,
            mounts: Vec::new(),
            role: Role::Component,
        };
        let interface = Interface {
            config,
            ..Interface::default()
        };
        let text = format!("{component:?} {interface:?}");
        assert!(text.contains("key") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn contents_of_files_and_limits_are_followed_and_volumes_are_not() {
        let workload = |source: VolumeSource| Workload {
            id: "a".into(),
            namespace: String::new(),
            name: String::new(),
            generation: 1,
            created: 0,
            owner: "a".into(),
            components: Vec::new(),
            interfaces: Vec::new(),
            volumes: vec![Volume {
                name: "v".to_owned(),
                source,
            }],
            memory_limit: None,
            grace: DEFAULT_GRACE,
            service_port: None,
            behind_service: false,
            routes_withheld: None,
            commands: Commands::default(),
            stamp: 0,
        };
        let files = |text: &'static str| {
            let files = [("a".to_owned(), Bytes::from_static(text.as_bytes()))];
            workload(VolumeSource::Files(Files(Arc::new(files.into()))))
        };
        assert!(files("1").runs_like(&files("2")) && files("1").starts_like(&files("2")));
        assert_ne!(files("1"), files("2"), "or nobody would be told");
        let ephemeral = |size_limit| workload(VolumeSource::Ephemeral { size_limit });
        assert!(!files("1").runs_like(&ephemeral(None)));
        assert!(ephemeral(Some(1)).runs_like(&ephemeral(None)));
        assert_ne!(ephemeral(Some(1)), ephemeral(None));
    }
}
