//! The order of a pull: what the policy allows, what is here, what the registry says, and what then has to be fetched.

use std::sync::{Arc, PoisonError};

use futures::FutureExt as _;
use tokio::sync::Semaphore;

use super::{
    auth::Tokens,
    content::{Resolved, download, on_disk, reprove, resolve},
    credentials::matching,
    failure::{Attempt, Failure},
    flight::{Flights, Part},
    hosts,
    limits::Limits,
    manifest::Layer,
    puller::PullerConfig,
    request::Patience,
    session::{Host, Login, Session},
    store::{Access, Record, Store, StoreError},
    transport::{Transport, TransportError},
};
use crate::{
    content::{Content, Fetched, Freshness},
    spec::{Digest, Image, PullPolicy},
};

/// Looks into the store at a time: more would only make threads, thousands of them when an agent starts.
const LOOKS: usize = 4;

/// What came of a pull, and of each login that was tried for it.
pub(super) type Pulled = (Result<Fetched, Arc<Failure>>, Vec<Attempt>);

/// All that pulls have in common.
pub(super) struct Client {
    config: PullerConfig,
    pub store: Arc<Store>,
    transport: Arc<Transport>,
    tokens: Arc<Tokens>,
    limits: Arc<Limits>,
    looks: Semaphore,
    downloads: Flights<Download, Result<Access, Arc<Failure>>>,
}

/// What tells downloads apart. Pulls from different repositories do not share one, nor do a stranger's and a user's: that one
/// repository sends some bytes says nothing about who may have them from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Download {
    digest: Digest,
    repository: String,
    anonymous: bool,
}

/// What the store has for a pull.
enum Local {
    /// The component, and this workload may have it.
    Held(Fetched),
    /// Something that this workload is not known to be allowed to have.
    Closed,
    /// Nothing, or nothing whole.
    Absent,
}

impl Client {
    pub fn new(config: PullerConfig) -> Result<Self, StoreError> {
        Ok(Self {
            store: Arc::new(Store::open(&config.store_dir)?),
            transport: Arc::new(Transport::new(config.connect_timeout)),
            tokens: Arc::default(),
            limits: Arc::new(Limits::new()),
            looks: Semaphore::new(LOOKS),
            downloads: Flights::default(),
            config,
        })
    }

    /// One pull.
    pub async fn pull(&self, image: &Image, logins: Vec<Login>, freshness: Freshness) -> Pulled {
        let mut attempts = Vec::new();
        let pulled = self.attempt(image, logins, freshness, &mut attempts).await;
        (pulled, attempts)
    }

    async fn attempt(
        &self,
        image: &Image,
        logins: Vec<Login>,
        freshness: Freshness,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Fetched, Arc<Failure>> {
        let thorough = freshness == Freshness::Revalidate;
        let (record, local) = self.look_up(image, &logins, thorough).await?;
        match (image.policy, local) {
            (PullPolicy::Never, Local::Held(fetched)) => return Ok(fetched),
            (PullPolicy::Never, Local::Closed) => {
                return Err(Failure::NeverPull { held: true }.into());
            }
            (PullPolicy::Never, Local::Absent) => {
                return Err(Failure::NeverPull { held: false }.into());
            }
            (PullPolicy::IfNotPresent, Local::Held(fetched)) if !thorough => return Ok(fetched),
            _ => {}
        }
        self.limits.admit(image.reference.registry()).await;
        let session = Arc::new(self.session(image, logins).await?);
        let found = self.ask_registry(&session, image, record, thorough).await;
        *attempts = session
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let resolved = found?;
        let Resolved {
            manifest,
            layer,
            access,
        } = resolved;
        let fetched = self.fetched(&manifest, &layer);
        let reference = image.reference.clone();
        let noted = on_disk(&self.store, move |store| {
            store.remember(&reference, &manifest, &layer, &access)
        })
        .await;
        if let Err(error) = noted {
            // The component is here; only the next pull has more to do.
            tracing::warn!(%error, image = %image.reference, "the image store cannot note a pull");
        }
        Ok(fetched)
    }

    /// What is known of the image, and whether this workload may have what is here. With `thorough` a blob that is not what
    /// its digest names does not count.
    async fn look_up(
        &self,
        image: &Image,
        logins: &[Login],
        thorough: bool,
    ) -> Result<(Option<Record>, Local), Arc<Failure>> {
        // Who reads whole blobs would keep the others waiting. The semaphore is never closed.
        let _place = match thorough {
            true => None,
            false => self.looks.acquire().await.ok(),
        };
        let reference = image.reference.clone();
        let hashes: Vec<_> = logins.iter().map(|l| l.hash.clone()).collect();
        let looked_up = on_disk(&self.store, move |store| {
            let Some(record) = store.recall(&reference) else {
                return Ok(None);
            };
            let proof = record.proof(hashes.iter());
            let held = proof.as_ref().is_some_and(|access| {
                store.holds(&record.layer(), &reference.name(), access, thorough)
            });
            if held {
                store.touch(&reference);
            }
            Ok(Some((record, proof.is_some(), held)))
        });
        Ok(match looked_up.await.map_err(Failure::from)? {
            None => (None, Local::Absent),
            Some((record, false, _)) => (Some(record), Local::Closed),
            Some((record, true, false)) => (Some(record), Local::Absent),
            Some((record, true, true)) => {
                let fetched = self.fetched(&record.manifest, &record.layer());
                (Some(record), Local::Held(fetched))
            }
        })
    }

    /// Asks the registry what the image is, and fetches what is missing of it.
    async fn ask_registry(
        &self,
        session: &Arc<Session>,
        image: &Image,
        record: Option<Record>,
        thorough: bool,
    ) -> Result<Resolved, Arc<Failure>> {
        let mut proved = None;
        if let Some(record) = &record
            && image.policy == PullPolicy::IfNotPresent
            && !thorough
        {
            proved = reprove(session, record).await?;
        }
        let resolved = match proved {
            Some(resolved) => resolved,
            None => {
                resolve(
                    session,
                    &image.reference,
                    record.as_ref().filter(|_| !thorough),
                )
                .await?
            }
        };
        let (size, limit) = (resolved.layer.size, self.config.max_size);
        if size > limit {
            return Err(Arc::new(Failure::TooLarge {
                what: "a layer",
                size,
                limit,
            }));
        }
        let access = self.provide(session, &resolved, thorough).await?;
        Ok(Resolved { access, ..resolved })
    }

    /// Makes sure that the layer is here; returns what opened it all.
    async fn provide(
        &self,
        session: &Arc<Session>,
        resolved: &Resolved,
        thorough: bool,
    ) -> Result<Access, Arc<Failure>> {
        let (layer, access) = (resolved.layer.clone(), resolved.access.clone());
        let repository = session.name.clone();
        let held = on_disk(&self.store, move |store| {
            Ok(store.holds(&layer, &repository, &access, thorough))
        });
        if held.await.map_err(Failure::from)? {
            return Ok(resolved.access.clone());
        }
        let key = Download {
            digest: resolved.layer.digest.clone(),
            repository: session.name.clone(),
            anonymous: resolved.access == Access::Anonymous,
        };
        loop {
            let work = || {
                self.download(Arc::clone(session), resolved.layer.clone())
                    .boxed()
            };
            match self.downloads.run(key.clone(), work).await {
                // Somebody else's failure (their token may have ended) is not ours.
                (Part::Joined, Err(failure)) => {
                    tracing::debug!(%failure, "a shared download failed")
                }
                (Part::Joined, Ok(_)) => return Ok(resolved.access.clone()),
                (Part::Began, result) => {
                    return result.map(|access| weaker(access, resolved.access.clone()));
                }
            }
        }
    }

    /// The download itself; owns all that it needs, since it may outlive the pull that began it.
    fn download(
        &self,
        session: Arc<Session>,
        layer: Layer,
    ) -> impl Future<Output = Result<Access, Arc<Failure>>> + Send + 'static {
        let (store, limits) = (Arc::clone(&self.store), Arc::clone(&self.limits));
        async move {
            let _place = limits.place(&session.registry).await;
            download(&session, &store, &layer).await.map_err(Arc::new)
        }
    }

    async fn session(&self, image: &Image, logins: Vec<Login>) -> Result<Session, Arc<Failure>> {
        let (certs, transport) = (self.config.certs_dir.clone(), Arc::clone(&self.transport));
        let registry = image.reference.registry().to_owned();
        let hosts = tokio::task::spawn_blocking(move || {
            let endpoints = hosts::endpoints(certs.as_deref(), &registry)?;
            let ready = endpoints.into_iter().map(|endpoint| {
                let client = transport.client(&endpoint)?;
                Ok(Host { endpoint, client })
            });
            ready.collect::<Result<Vec<_>, Failure>>()
        });
        let hosts = hosts
            .await
            .map_err(|e| Failure::Transport(TransportError::Task(e)))??;
        let patience = Patience {
            head: self.config.header_timeout,
            stall: self.config.stall_timeout,
        };
        Ok(Session::new(
            &image.reference,
            hosts,
            logins,
            Arc::clone(&self.tokens),
            patience,
        ))
    }

    /// The workload's credentials for the image.
    pub fn logins(&self, image: &Image) -> Vec<Login> {
        let login = |found: &crate::spec::RegistryCredential| Login {
            credential: found.credential.clone(),
            origin: found.origin.clone(),
            hash: self
                .store
                .hash(image.reference.registry(), &found.credential),
        };
        matching(&image.credentials, &image.reference)
            .into_iter()
            .map(login)
            .collect()
    }

    fn fetched(&self, manifest: &Digest, layer: &Layer) -> Fetched {
        Fetched {
            digest: layer.digest.clone(),
            manifest: Some(manifest.clone()),
            content: Content::File(self.store.blob(&layer.digest)),
        }
    }
}

/// What opened both of two things: a credential, if either needed it.
fn weaker(one: Access, other: Access) -> Access {
    if one == Access::Anonymous { other } else { one }
}
