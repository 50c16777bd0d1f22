//! Pulls as their callers see them: one for all who want the same.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::FutureExt as _;

use super::{
    client::{Client, Pulled},
    content::on_disk,
    credentials::matching,
    failure::PullError,
    flight::Flights,
    session::Login,
    store::{CredentialHash, StoreError},
};
use crate::{
    content::{Fetched, Freshness},
    spec::{Digest, Image, PullPolicy},
};

/// How a [`Puller`] works. Only the store's place has no default: `PullerConfig::new(dir)`.
#[derive(Debug, Clone)]
pub struct PullerConfig {
    /// Directory of the store; made if it is not there. Several processes may share it.
    pub store_dir: PathBuf,
    /// Directory with files in containerd's `certs.d` layout; without it every registry is asked by HTTPS, as itself.
    pub certs_dir: Option<PathBuf>,
    /// Largest component that is pulled, in bytes. Default: 256 MiB.
    pub max_size: u64,
    /// How long a connection may take. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long a registry may take to begin its answer. Default: 30 s.
    pub header_timeout: Duration,
    /// How long a download may go without a byte; there is no limit for the whole. Default: 60 s.
    pub stall_timeout: Duration,
}

impl PullerConfig {
    /// The defaults, with a store in `store_dir`.
    pub fn new(store_dir: impl Into<PathBuf>) -> Self {
        Self {
            store_dir: store_dir.into(),
            certs_dir: None,
            max_size: 256 << 20,
            connect_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// Pulls components from registries, and keeps them. One for a node; share it in an [`Arc`].
///
/// # Guarantees
/// - Content is used only if its bytes have the digest that names them.
/// - What one workload pulled with its secret is given to another only if that one's own credentials are known to open it, or
///   everybody's do. An image on disk that a workload has no proof for is asked of the registry once, with its credentials;
///   with the policy `Never` it is refused. Proof is kept by a hash of the credential, so a rotated password asks once more.
/// - Pulls of one reference with the same secrets, where the policy is `IfNotPresent`, are one pull as long as it is under way.
/// - Pulls of one component share one download. At most 4 downloads run at a time, 2 from one registry; pulls begin at
///   5 a second for a registry, after a burst of 10. More of them wait.
/// - A pull that is dropped stops, unless another one needs its download.
pub struct Puller {
    client: Arc<Client>,
    pulls: Flights<Wanted, Pulled>,
}

/// What tells pulls apart that may be answered from the disk. Who wants the same with the same secrets gets the same, and with
/// it the same words about what failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    reference: String,
    logins: Vec<(String, CredentialHash)>,
}

impl Puller {
    /// Opens the store, and reads the system's certificate authorities. Blocks for as long as that takes: milliseconds.
    ///
    /// # Errors
    /// [`StoreError`], when the store's directory cannot be used.
    pub fn new(config: PullerConfig) -> Result<Self, StoreError> {
        Ok(Self {
            client: Arc::new(Client::new(config)?),
            pulls: Flights::default(),
        })
    }

    /// Gets an image's component.
    ///
    /// # Errors
    /// [`PullError`], which converts into a [`Fault`](crate::fault::Fault).
    pub async fn pull(&self, image: &Image, freshness: Freshness) -> Result<Fetched, PullError> {
        let logins = self.client.logins(image);
        // Where the registry is to be asked each time, an answer that is on its way may be too old.
        let shared = image.policy == PullPolicy::IfNotPresent && freshness == Freshness::Policy;
        let (pulled, attempts) = if shared {
            self.pull_once(image, logins).await
        } else {
            self.client.pull(image, logins, freshness).await
        };
        pulled.map_err(|failure| PullError {
            image: image.reference.clone(),
            attempts,
            unusable_secrets: image.unusable_secrets.clone(),
            unmatched_secrets: unmatched(image),
            failure,
        })
    }

    /// The pull that is under way, or a new one.
    async fn pull_once(&self, image: &Image, logins: Vec<Login>) -> Pulled {
        let of = |login: &Login| (login.origin.clone(), login.hash.clone());
        let wanted = Wanted {
            reference: image.reference.to_string(),
            logins: logins.iter().map(of).collect(),
        };
        let begin = || {
            let (client, image) = (Arc::clone(&self.client), image.clone());
            async move { client.pull(&image, logins, Freshness::Policy).await }.boxed()
        };
        self.pulls.run(wanted, begin).await.1
    }

    /// Digests of the manifests and components that are in the store, those used last first; at most this many.
    pub async fn newest(&self, most: usize) -> Vec<Digest> {
        let found = on_disk(&self.client.store, move |store| Ok(store.newest(most))).await;
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "the image store cannot be listed");
            Vec::new()
        })
    }
}

/// The secrets that are for other images, each with what it is for.
fn unmatched(image: &Image) -> Vec<String> {
    let matched = matching(&image.credentials, &image.reference);
    let others = image.credentials.iter().filter(|c| !matched.contains(c));
    others
        .map(|c| match &c.scope {
            Some(scope) => format!("{} is for {scope}", c.origin),
            None => c.origin.clone(),
        })
        .collect()
}
