//! What should run: a workload's desired state, already validated, as plain data.
//!
//! Nothing here does I/O, and nothing here knows Kubernetes: the Kubernetes agent, `washlet run` and the embedding API all
//! convert into these types, and the host acts on nothing else.

mod credential;
mod hosts;
mod image;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use semver::Version;

pub use credential::{Credential, RegistryCredential, Secret};
pub use hosts::{AllowedHost, ParseHostError};
pub use image::{Digest, ImageRef, ParseImageError, PullPolicy};

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
    /// When the workload was created, in seconds since the Unix epoch: the oldest claim to a route wins.
    pub created: i64,
    /// Identity of the root owner. Workloads of one owner (replicas) share their routes; by default the workload's own id.
    pub owner: Arc<str>,
    /// The components, by unique name.
    pub components: Vec<Component>,
    /// Configuration of the host's interfaces for this workload.
    pub interfaces: Vec<Interface>,
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
    /// Most linear memory of one instance, in bytes; none means the engine's limit.
    pub memory_limit: Option<u64>,
    /// Most time for one request, from its head to the end of the response; none means the server's default.
    pub request_timeout: Option<Duration>,
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
    /// traffic comes from).
    #[must_use]
    pub fn runs_like(&self, other: &Self) -> bool {
        let felt = |w: &Self| {
            let mut felt = w.without_traffic();
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
    /// where the traffic comes from.
    #[must_use]
    pub fn starts_like(&self, other: &Self) -> bool {
        self.without_traffic() == other.without_traffic()
    }

    fn without_traffic(&self) -> Self {
        Self {
            service_port: None,
            routes_withheld: None,
            ..self.clone()
        }
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
            .field("memory_limit", &self.memory_limit)
            .field("request_timeout", &self.request_timeout)
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
            memory_limit: None,
            request_timeout: None,
        };
        let interface = Interface {
            config,
            ..Interface::default()
        };
        let text = format!("{component:?} {interface:?}");
        assert!(text.contains("key") && !text.contains("s3cret"), "{text}");
    }
}
