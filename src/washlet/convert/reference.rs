//! What a Workload names: ConfigMaps, Secrets and a ServiceAccount of its namespace, and what came of reading them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::PathBuf,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};

use crate::washlet::api;

/// One object that a workload names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferenceKey {
    /// What kind of object.
    pub kind: ReferenceKind,
    /// Its namespace: always the workload's own.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The kinds of object that a workload can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReferenceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// A ServiceAccount.
    ServiceAccount,
}

impl fmt::Display for ReferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::ServiceAccount => "ServiceAccount",
        })
    }
}

/// `Secret default/regcred`, for messages.
impl fmt::Display for ReferenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What came of reading an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its content.
    Found(Referenced),
    /// There is no such object.
    Missing,
    /// It may not be read; the API server's own words.
    Forbidden(String),
}

/// The content of an object, as far as a workload can use it.
#[derive(Clone, PartialEq, Eq)]
pub enum Referenced {
    /// A ConfigMap: `data` and `binaryData` together.
    ConfigMap(BTreeMap<String, Vec<u8>>),
    /// A Secret.
    Secret {
        /// Its type, for example `kubernetes.io/dockerconfigjson`.
        kind: String,
        /// Its data, decoded.
        data: BTreeMap<String, Vec<u8>>,
    },
    /// A ServiceAccount.
    ServiceAccount {
        /// Names of its pull secrets, in order.
        pull_secrets: Vec<String>,
    },
}

/// Shows the keys, never a value.
impl fmt::Debug for Referenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap(data) => f.debug_tuple("ConfigMap").field(&data.keys()).finish(),
            Self::Secret { kind, data } => f
                .debug_struct("Secret")
                .field("kind", kind)
                .field("keys", &data.keys())
                .finish(),
            Self::ServiceAccount { pull_secrets } => f
                .debug_struct("ServiceAccount")
                .field("pull_secrets", pull_secrets)
                .finish(),
        }
    }
}

impl From<ConfigMap> for Referenced {
    fn from(map: ConfigMap) -> Self {
        let texts = map
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes()));
        let bytes = map
            .binary_data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, bytes)| (key, bytes.0));
        Self::ConfigMap(texts.chain(bytes).collect())
    }
}

impl From<Secret> for Referenced {
    /// With `stringData` too, which `washlet run` meets; the API server folds it into `data`.
    fn from(secret: Secret) -> Self {
        let bytes = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, bytes)| (key, bytes.0));
        let texts = secret
            .string_data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes()));
        Self::Secret {
            kind: secret.type_.unwrap_or_else(|| "Opaque".to_owned()),
            data: bytes.chain(texts).collect(),
        }
    }
}

impl From<ServiceAccount> for Referenced {
    fn from(account: ServiceAccount) -> Self {
        let secrets = account
            .image_pull_secrets
            .unwrap_or_default()
            .into_iter()
            .map(|secret| secret.name);
        Self::ServiceAccount {
            pull_secrets: secrets.filter(|name| !name.is_empty()).collect(),
        }
    }
}

/// All that has been read, and where files of images are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What came of reading each object.
    pub outcomes: HashMap<ReferenceKey, Outcome>,
    /// Folder that `file:` images are relative to. None, on a cluster, means that there are no such images.
    pub base_dir: Option<PathBuf>,
}

/// The namespace of a workload.
pub(super) fn namespace(workload: &api::Workload) -> &str {
    workload
        .metadata
        .namespace
        .as_deref()
        .filter(|n| !n.is_empty())
        .unwrap_or("default")
}

/// The objects that have to be read before a workload can be converted. A ServiceAccount names more of them, so this is to be
/// asked again once `resolved` has it.
#[must_use]
pub fn references(workload: &api::Workload, resolved: &Resolved) -> HashSet<ReferenceKey> {
    let namespace = namespace(workload);
    let mut keys = HashSet::new();
    let mut add = |kind, name: &str| {
        // An empty name stands for no object.
        if !name.is_empty() {
            keys.insert(ReferenceKey {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        }
    };
    let spec = &workload.spec;
    let environments = spec
        .components
        .iter()
        .map(|c| &c.local_resources)
        .chain(spec.service.iter().map(|s| &s.local_resources))
        .filter_map(|local| local.as_ref()?.environment.as_ref());
    let layers = environments
        .map(|e| (&e.config_from, &e.secret_from))
        .chain(
            spec.host_interfaces
                .iter()
                .map(|i| (&i.config_from, &i.secret_from)),
        );
    for (maps, secrets) in layers {
        maps.iter()
            .for_each(|map| add(ReferenceKind::ConfigMap, &map.name));
        secrets
            .iter()
            .for_each(|secret| add(ReferenceKind::Secret, &secret.name));
    }
    for volume in &spec.volumes {
        if let Some(map) = &volume.config_map {
            add(ReferenceKind::ConfigMap, &map.name);
        }
        if let Some(secret) = &volume.secret {
            add(ReferenceKind::Secret, &secret.secret_name);
        }
    }
    let pull_secrets = spec
        .components
        .iter()
        .filter_map(|c| c.image_pull_secret.as_ref())
        .chain(
            spec.service
                .iter()
                .filter_map(|s| s.image_pull_secret.as_ref()),
        )
        .chain(&spec.image_pull_secrets);
    pull_secrets.for_each(|secret| add(ReferenceKind::Secret, &secret.name));
    if let Some(name) = spec
        .service_account_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        add(ReferenceKind::ServiceAccount, name);
        let key = ReferenceKey {
            kind: ReferenceKind::ServiceAccount,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        if let Some(Outcome::Found(Referenced::ServiceAccount { pull_secrets })) =
            resolved.outcomes.get(&key)
        {
            pull_secrets
                .iter()
                .for_each(|secret| add(ReferenceKind::Secret, secret));
        }
    }
    keys
}
